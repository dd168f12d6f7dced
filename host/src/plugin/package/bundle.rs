//! Bundles for sites without network: one tar file with plugins, signatures, public keys, policy and lock, and in front of
//! them `bundle.json` with the digest of each.
//!
//! All of a bundle is read and compared before anything of it is used. Nothing is unpacked by the names in it: what is no
//! plain file, is not in the list, comes twice, or is too large refuses the whole. Keys, policy and lock of a bundle are for
//! a person to look at: a bundle that could trust itself would prove nothing.
//!
//! A tar file without such a list is no bundle, but may hold components with signatures beside them; nothing else of it is
//! looked at.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::source::Candidate;
use super::{LARGEST_COMPONENT, PackageError, Result, digest_of, is_digest, replace};

const VERSION: u32 = 1;
const LIST: &str = "bundle.json";
/// Files of one bundle.
const MOST: usize = 1000;
/// Bytes of all of them.
const LARGEST: u64 = 2 << 30;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    v: u32,
    files: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    size: u64,
    digest: String,
}

/// What is in a bundle.
#[derive(Debug, Default)]
pub struct Bundle {
    /// By path.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Bundle {
    /// Adds a file.
    pub fn put(&mut self, path: impl Into<String>, bytes: Vec<u8>) {
        self.files.insert(path.into(), bytes);
    }

    /// Writes it as one file, the same bytes for the same content.
    ///
    /// # Errors
    /// It cannot be written, or nobody could read what would be written.
    pub fn write(&self, output: &Path) -> Result<()> {
        let cannot = |error: std::io::Error| PackageError::of_file("write", output, &error);
        let files = self
            .files
            .iter()
            .map(|(path, bytes)| Line { path: path.clone(), size: bytes.len() as u64, digest: digest_of(bytes) })
            .collect();
        let list = serde_json::to_vec_pretty(&List { v: VERSION, files })
            .map_err(|error| PackageError::new(format!("cannot write {LIST}: {error}")))?;
        let mut archive = tar::Builder::new(Vec::new());
        let mut append = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            archive.append_data(&mut header, path, bytes)
        };
        append(LIST, &list).map_err(cannot)?;
        for (path, bytes) in &self.files {
            append(path, bytes).map_err(cannot)?;
        }
        let mut bytes = archive.into_inner().map_err(cannot)?;
        bytes.flush().map_err(cannot)?;
        Self::of(bytes.as_slice()).map_err(|message| {
            PackageError::new(format!("`{}` could not be read again: {message}", output.display()))
        })?;
        replace(output, &bytes, 0o644)
    }

    /// Reads and compares all of a bundle.
    ///
    /// # Errors
    /// It is none, or anything in it is not as its list says.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(|error| PackageError::of_file("read", path, &error))?;
        Self::of(file).map_err(|message| PackageError::new(format!("`{}`: {message}", path.display())))
    }

    fn of(reader: impl Read) -> std::result::Result<Self, String> {
        let mut archive = tar::Archive::new(reader);
        let mut list: Option<BTreeMap<String, Line>> = None;
        let mut bundle = Self::default();
        for entry in archive.entries().map_err(|error| format!("not a tar file: {error}"))? {
            let mut entry = entry.map_err(|error| format!("not a tar file: {error}"))?;
            let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| "a name in it is no text")?;
            let shown = name.escape_debug().to_string();
            if !entry.header().entry_type().is_file() {
                return Err(format!("`{shown}` in it is no plain file"));
            }
            let limit = match &list {
                None if name != LIST => return Err(format!("it does not begin with {LIST}, so it is no bundle")),
                None => 1 << 20,
                Some(list) => list.get(&name).ok_or_else(|| format!("`{shown}` is not in its list"))?.size,
            };
            if bundle.files.contains_key(&name) {
                return Err(format!("`{shown}` comes twice"));
            }
            let mut bytes = Vec::new();
            entry.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(|error| format!("`{shown}`: {error}"))?;
            if bytes.len() as u64 > limit {
                return Err(format!("`{shown}` is larger than {limit} bytes"));
            }
            match &list {
                None => list = Some(parse(&bytes)?),
                Some(list) => {
                    let wanted = list.get(&name).map(|line| line.digest.as_str()).unwrap_or_default();
                    if digest_of(&bytes) != wanted {
                        return Err(format!("`{shown}` was changed: its digest is not {wanted}"));
                    }
                    bundle.files.insert(name, bytes);
                }
            }
        }
        let list = list.ok_or("it is empty")?;
        match list.keys().find(|path| !bundle.files.contains_key(*path)) {
            Some(missing) => Err(format!("`{}` of its list is not in it", missing.escape_debug())),
            None => Ok(bundle),
        }
    }

    /// Its plugins, with their signatures.
    #[must_use]
    pub fn candidates(&self, source: &str) -> Vec<Candidate> {
        self.files
            .iter()
            .filter(|(path, _)| path.ends_with(".wasm"))
            .map(|(path, bytes)| Candidate {
                bytes: bytes.clone(),
                signature: ["sig", "minisig"]
                    .iter()
                    .find_map(|extension| self.files.get(&format!("{path}.{extension}")))
                    .map(|text| String::from_utf8_lossy(text).into_owned()),
                source: source.to_owned(),
            })
            .collect()
    }
}

/// A tar file.
#[derive(Debug)]
pub enum Archive {
    /// With the list in front, and as that says.
    Bundle(Bundle),
    /// Without one: its components and their signatures.
    Plain(Bundle),
}

impl Archive {
    /// Reads a tar file.
    ///
    /// # Errors
    /// It begins like a bundle and is none, or it is one that no components are taken from.
    pub fn read(path: &Path) -> Result<Self> {
        let open = || std::fs::File::open(path).map_err(|error| PackageError::of_file("read", path, &error));
        let wrong = |message| PackageError::new(format!("`{}`: {message}", path.display()));
        if begins_with_list(open()?).map_err(wrong)? {
            return Bundle::read(path).map(Self::Bundle);
        }
        plain(open()?).map(Self::Plain).map_err(wrong)
    }
}

fn no_tar(error: std::io::Error) -> String {
    format!("not a tar file: {error}")
}

fn begins_with_list(reader: impl Read) -> std::result::Result<bool, String> {
    let mut archive = tar::Archive::new(reader);
    let first = archive.entries().map_err(no_tar)?.next().transpose().map_err(no_tar)?;
    Ok(first.is_some_and(|entry| *entry.path_bytes() == *LIST.as_bytes()))
}

/// The components and signatures of a tar file that somebody made by hand, wherever in it they lie. What is neither is passed
/// over; what is neither file nor directory refuses the whole.
fn plain(reader: impl Read) -> std::result::Result<Bundle, String> {
    let mut archive = tar::Archive::new(reader);
    let mut bundle = Bundle::default();
    let mut left = LARGEST;
    for (at, entry) in archive.entries().map_err(no_tar)?.enumerate() {
        let mut entry = entry.map_err(no_tar)?;
        if at >= MOST {
            return Err(format!("it has more than {MOST} files"));
        }
        let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| "a name in it is no text")?;
        let shown = name.escape_debug().to_string();
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        if !kind.is_file() {
            return Err(format!("`{shown}` in it is no plain file"));
        }
        let name = name.strip_prefix("./").unwrap_or(&name);
        if ![".wasm", ".wasm.sig", ".wasm.minisig"].iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        if !name.split('/').all(is_plain) {
            return Err(format!("`{shown}` is no path that a component may have"));
        }
        let limit = LARGEST_COMPONENT.min(left);
        let mut bytes = Vec::new();
        entry.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(|error| format!("`{shown}`: {error}"))?;
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| format!("`{shown}` is too large"))?;
        if bytes.len() as u64 > LARGEST_COMPONENT {
            return Err(format!("`{shown}` is too large"));
        }
        if bundle.files.insert(name.to_owned(), bytes).is_some() {
            return Err(format!("`{shown}` comes twice"));
        }
    }
    if bundle.files.keys().any(|path| path.ends_with(".wasm")) {
        return Ok(bundle);
    }
    Err(format!("it does not begin with {LIST}, so it is no bundle, and there is no `.wasm` file in it"))
}

fn parse(bytes: &[u8]) -> std::result::Result<BTreeMap<String, Line>, String> {
    let list: List = serde_json::from_slice(bytes).map_err(|error| format!("{LIST}: {error}"))?;
    if list.v != VERSION {
        return Err(format!("{LIST}: version {} is not known here; this program reads {VERSION}", list.v));
    }
    if list.files.len() > MOST {
        return Err(format!("it has more than {MOST} files"));
    }
    let mut lines = BTreeMap::new();
    let mut all = 0_u64;
    for line in list.files {
        let shown = line.path.escape_debug().to_string();
        if !is_fit(&line.path) {
            return Err(format!("{LIST}: `{shown}` is no path that a bundle may have"));
        }
        all = all.saturating_add(line.size);
        if line.size > LARGEST_COMPONENT || all > LARGEST {
            return Err(format!("{LIST}: `{shown}` is too large"));
        }
        if !is_digest(&line.digest) {
            return Err(format!("{LIST}: `{shown}` has no digest of the form sha256:…"));
        }
        if lines.insert(line.path.clone(), line).is_some() {
            return Err(format!("{LIST}: `{shown}` comes twice"));
        }
    }
    Ok(lines)
}

/// The paths that there may be: two files at the top, and files with plain names in two directories.
fn is_fit(path: &str) -> bool {
    match path.split_once('/') {
        None => matches!(path, "policy.toml" | "maddock.lock"),
        Some(("plugins", name)) => is_plain(name) && (name.ends_with(".wasm") || name.ends_with(".wasm.sig")),
        Some(("keys", name)) => is_plain(name) && name.ends_with(".pub"),
        Some(_) => false,
    }
}

/// Names without anything that means something to whoever unpacks them.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The path in a bundle of a public key that somebody named.
#[must_use]
pub fn key_path(name: &str) -> String {
    let plain: String = name.chars().map(|c| if is_plain(&format!("a{c}")) { c } else { '-' }).collect();
    let plain = plain.trim_start_matches('.');
    format!("keys/{}.pub", if plain.is_empty() { "key" } else { plain })
}

/// Whether a file is a tar file.
///
/// # Errors
/// It cannot be read.
pub fn is_tar(path: &Path) -> Result<bool> {
    let cannot = |error: std::io::Error| PackageError::of_file("read", path, &error);
    let mut head = Vec::new();
    std::fs::File::open(path).map_err(cannot)?.take(512).read_to_end(&mut head).map_err(cannot)?;
    Ok(head.get(257..262) == Some(b"ustar"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entry<'a> = (&'a str, &'a [u8], tar::EntryType);

    fn tarred(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, bytes, kind) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_entry_type(*kind);
            // As written, whatever the crate thinks of it.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, *bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn list(files: &[(&str, &[u8])]) -> Vec<u8> {
        let lines: Vec<_> = files
            .iter()
            .map(|(path, bytes)| serde_json::json!({"path": path, "size": bytes.len(), "digest": digest_of(bytes)}))
            .collect();
        serde_json::json!({"v": 1, "files": lines}).to_string().into_bytes()
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let place = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::default();
        bundle.put("plugins/a.wasm", b"one".to_vec());
        bundle.put("keys/me.pub", b"two".to_vec());
        let path = place.path().join("b.tar");
        bundle.write(&path).unwrap();
        assert!(is_tar(&path).unwrap());
        assert_eq!(Bundle::read(&path).unwrap().files, bundle.files);
    }

    #[test]
    fn what_nobody_could_read_is_not_written() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("b.tar");
        let mut bundle = Bundle::default();
        bundle.put("keys/of me.pub", b"two".to_vec());
        let error = bundle.write(&path).unwrap_err();
        assert!(error.message.contains("`keys/of me.pub` is no path"), "{error}");
        assert!(!path.exists());
        for (name, expected) in [("of me", "keys/of-me.pub"), ("..", "keys/key.pub"), ("a.b", "keys/a.b.pub")] {
            assert_eq!(key_path(name), expected);
            assert!(is_fit(&key_path(name)));
        }
    }

    #[test]
    fn a_tar_file_without_a_list_is_searched_for_components_and_nothing_else() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let of = |entries: &[Entry<'_>]| plain(&tarred(entries)[..]);
        let found = of(&[
            ("./", b"", Directory),
            ("./a.wasm", b"one", Regular),
            ("./a.wasm.minisig", b"signed", Regular),
            ("more/b.wasm", b"two", Regular),
            ("README.md", b"text", Regular),
            ("policy.toml", b"text", Regular),
        ])
        .unwrap();
        assert_eq!(found.files.keys().collect::<Vec<_>>(), ["a.wasm", "a.wasm.minisig", "more/b.wasm"]);
        let candidates = found.candidates("x.tar");
        assert_eq!(candidates.len(), 2);
        assert_eq!(candidates[0].signature.as_deref(), Some("signed"));
        let many: Vec<String> = (0..=MOST).map(|number| format!("{number}")).collect();
        let many: Vec<Entry<'_>> = many.iter().map(|name| (name.as_str(), &b""[..], Regular)).collect();
        let cases: [(&[Entry<'_>], &str); 7] = [
            (&[("a.txt", b"", Regular)], "no `.wasm` file in it"),
            (&[("a.wasm", b"", Symlink)], "no plain file"),
            (&[("a.wasm", b"", Regular), ("a", b"", Link)], "no plain file"),
            (&[("../a.wasm", b"", Regular)], "no path that a component may have"),
            (&[("/a.wasm", b"", Regular)], "no path that a component may have"),
            (&[("a.wasm", b"1", Regular), ("./a.wasm", b"2", Regular)], "comes twice"),
            (&many, "more than 1000 files"),
        ];
        for (entries, words) in cases {
            let error = of(entries).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn whatever_is_not_as_the_list_says_refuses_the_whole() {
        use tar::EntryType::{Regular, Symlink};
        let a: (&str, &[u8]) = ("plugins/a.wasm", b"one");
        let good = list(&[a]);
        let cases = [
            (tarred(&[("plugins/a.wasm", b"one", Regular)]), "does not begin with bundle.json"),
            (tarred(&[(LIST, &good, Regular)]), "is not in it"),
            (tarred(&[(LIST, &good, Regular), ("plugins/a.wasm", b"two", Regular)]), "was changed"),
            (tarred(&[(LIST, &good, Regular), ("plugins/a.wasm", b"more", Regular)]), "is larger"),
            (tarred(&[(LIST, &good, Regular), (a.0, a.1, Regular), (a.0, a.1, Regular)]), "comes twice"),
            (tarred(&[(LIST, &good, Regular), (a.0, b"", Symlink)]), "no plain file"),
            (tarred(&[(LIST, &good, Regular), ("../../x", b"one", Regular)]), "is not in its list"),
            (tarred(&[(LIST, &list(&[("../../x", b"one")]), Regular)]), "no path that a bundle may have"),
            (tarred(&[(LIST, &list(&[("/etc/x.wasm", b"one")]), Regular)]), "no path that a bundle may have"),
            (tarred(&[(LIST, &list(&[("plugins/../x.wasm", b"one")]), Regular)]), "no path that a bundle may have"),
            (tarred(&[(LIST, &list(&[a, a]), Regular)]), "comes twice"),
            (b"hello".to_vec(), "not a tar file"),
        ];
        for (bytes, words) in cases {
            let error = Bundle::of(&bytes[..]).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
        let large = format!(
            r#"{{"v":1,"files":[{{"path":"plugins/a.wasm","size":9999999999,"digest":"{}"}}]}}"#,
            digest_of(b"")
        );
        assert!(Bundle::of(&tarred(&[(LIST, large.as_bytes(), Regular)])[..]).unwrap_err().contains("too large"));
    }
}
