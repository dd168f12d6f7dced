//! Amounts of a resource as a cluster writes them: `500m`, `16Gi`, `1e3`.

/// Suffixes and what they stand for, in thousandths.
const SUFFIXES: [(&str, u128); 16] = [
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("Ei", 1000 << 60),
    ("m", 1),
    ("k", 1_000_000),
    ("K", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("e3", 1_000_000),
    ("", 1000),
];

/// An amount, with the text that it was written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity {
    text: String,
    thousandths: u128,
}

impl Quantity {
    /// Reads an amount; none where it is none, or is nothing.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(split);
        let (_, unit) = SUFFIXES.iter().find(|(known, _)| *known == suffix && *known != "K")?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || whole.len() > 15 || part.len() > 9 || (part.is_empty() && number.contains('.')) {
            return None;
        }
        let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
        let digits: u128 = format!("{whole}{part}").parse().ok()?;
        let thousandths = digits.checked_mul(*unit)?.checked_div(scale)?;
        (thousandths > 0).then(|| Self { text: text.to_owned(), thousandths })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is less than the other.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.thousandths < other.thousandths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Quantity {
        Quantity::read(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn amounts_are_compared_by_what_they_are_and_not_as_texts() {
        for (less, more) in
            [("64Gi", "128Gi"), ("9Gi", "10Gi"), ("1000Mi", "1Gi"), ("500m", "1"), ("1", "1.5"), ("999", "1e3")]
        {
            assert!(read(less).is_below(&read(more)), "{less} {more}");
            assert!(!read(more).is_below(&read(less)), "{more} {less}");
        }
        assert_eq!(read("0.5").thousandths, read("500m").thousandths);
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "Gi", "16 GB", "16gb", "-1", "1Gi2", "0", "1.", ".5", "a", "1K", "99999999999999999999"] {
            assert_eq!(Quantity::read(text), None, "{text}");
        }
    }
}
