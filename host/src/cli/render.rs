//! How numbers and durations are printed for people. Files hold them as measured.

use serde_json::Value;

use crate::capability::events::is_hostile;

/// A value as JSON for people and programs. What could drive a terminal is escaped, as JSON has it.
#[must_use]
pub fn json(value: &Value) -> String {
    escaped(&format!("{value:#}"))
}

/// The same for JSON that is a text already.
#[must_use]
pub fn escaped(json: &str) -> String {
    // Such characters stand within texts only, and lie in the plane that has escapes of four digits.
    let escape = |c: char| match c {
        '\n' => c.to_string(),
        c if is_hostile(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    json.chars().map(escape).collect()
}

/// A performance figure: thousands separated from 1,000 on, fewer decimals the larger it is.
#[must_use]
pub fn performance(text: &str) -> String {
    let Ok(value) = text.trim().parse::<f64>() else {
        return if text.trim().is_empty() { "N/A".to_owned() } else { text.trim().to_owned() };
    };
    let size = value.abs();
    if size >= 1000.0 {
        thousands(value)
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.01 || value == 0.0 {
        format!("{value:.4}")
    } else {
        significant(value, 4)
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 { format!("-{grouped}") } else { grouped }
}

/// `digits` significant digits, in scientific notation where the exponent is below -4, as `%g` prints.
fn significant(value: f64, digits: usize) -> String {
    let text = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if exponent < -4 {
        let mantissa =
            if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let decimals = usize::try_from(i32::try_from(digits).unwrap_or(4) - 1 - exponent).unwrap_or_default();
    let fixed = format!("{value:.decimals$}");
    if fixed.contains('.') { fixed.trim_end_matches('0').trim_end_matches('.').to_owned() } else { fixed }
}

/// A duration in seconds, as text; a trailing `s` is accepted.
#[must_use]
pub fn duration(text: &str) -> String {
    match text.trim().trim_end_matches('s').parse::<f64>() {
        Ok(seconds) if seconds < 1.0 => format!("{:.0}ms", seconds * 1000.0),
        Ok(seconds) if seconds < 60.0 => format!("{seconds:.2}s"),
        Ok(seconds) => format!("{:.1}m", seconds / 60.0),
        Err(_) => "N/A".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_on_a_terminal_is_text_and_the_same_json() {
        let value = serde_json::json!({"a\u{9b}": "\u{1b}[2J\u{202e}\u{2028}\n\u{7f} é 🚀"});
        let text = json(&value);
        assert!(!text.contains(|c| is_hostile(c) && c != '\n'), "{}", text.escape_debug());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn performance_figures_print_as_the_contract_says() {
        let cases = [
            ("14164", "14,164"),
            ("1234567.8", "1,234,568"),
            ("999.96", "1000.0"),
            ("12.34", "12.3"),
            ("0.5", "0.5000"),
            ("0.00123456", "0.001235"),
            ("0.0000123", "1.23e-05"),
            ("", "N/A"),
            ("-2500", "-2,500"),
            ("odd", "odd"),
        ];
        for (text, expected) in cases {
            assert_eq!(performance(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_print_as_the_contract_says() {
        for (text, expected) in [("0.25", "250ms"), ("3.5", "3.50s"), ("90", "1.5m"), ("3.5s", "3.50s"), ("", "N/A")] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
