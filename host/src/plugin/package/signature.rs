//! Signatures of components, and the keys that are trusted.
//!
//! The format is minisign's, which any signer can make: a detached signature beside the file (`x.wasm.sig`, or
//! `x.wasm.minisig`), and public keys that are pinned by a person. A key is told by all of its bytes; the short id in its
//! comment is for reading. Only a signature by a pinned key counts; anybody can make another.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKeyBox, SignatureBox};

use super::{PackageError, Result, read_at_most, replace};
use crate::plugin::Environment;
use crate::plugin::manifest::Manifest;

/// Keys of the machine, for all users.
const SITE: &str = "/etc/maddock/keys";
/// Keys and signatures are far smaller.
const LARGEST: u64 = 64 << 10;

/// A public key that somebody pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// The name of its file, without `.pub`.
    pub name: String,
    /// The key as minisign writes it: `RW…`.
    pub public: String,
    /// Where it is pinned.
    pub place: PathBuf,
}

/// What is known of who made a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// There is no signature.
    Not,
    /// By a key that is pinned; the signature fits the bytes.
    By(TrustedKey),
    /// By a key that is not pinned: nothing can be said.
    ByStranger(String),
    /// The signature does not fit the bytes, or is none.
    Wrong(String),
}

impl Signed {
    /// For a person.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Not => "no signature".to_owned(),
            Self::By(key) => format!("by `{}` ({})", key.name, key.public),
            Self::ByStranger(id) => format!("by key {id}, which is not trusted here"),
            Self::Wrong(why) => format!("WRONG: {why}"),
        }
    }

    /// The public key, where the signature counts.
    #[must_use]
    pub fn signer(&self) -> Option<&str> {
        match self {
            Self::By(key) => Some(&key.public),
            _ => None,
        }
    }
}

/// Where this user's configuration lies.
#[must_use]
pub fn configuration(environment: &Environment) -> Option<PathBuf> {
    let absolute = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|directory| directory.join("maddock"))
}

/// Reads a small text, where there is one.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    String::from_utf8(read_at_most(path, LARGEST)?)
        .map(Some)
        .map_err(|_| PackageError::new(format!("`{}` is not text", path.display())))
}

/// The signature that lies beside a file.
///
/// # Errors
/// It cannot be read.
pub fn beside(path: &Path) -> Result<Option<String>> {
    for extension in ["sig", "minisig"] {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{extension}"));
        if let Some(text) = read_text(Path::new(&name))? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// Every key that is pinned: this machine's, then this user's.
///
/// # Errors
/// A file among them that is no public key, or that others could have written.
pub fn trusted(environment: &Environment) -> Result<Vec<TrustedKey>> {
    let own = configuration(environment).map(|directory| directory.join("keys"));
    let mut keys: Vec<TrustedKey> = Vec::new();
    for directory in [Some(PathBuf::from(SITE)), own].into_iter().flatten() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "pub"));
        files.sort();
        for file in files {
            for place in [&directory, &file] {
                check_owner(place)?;
            }
            let text = read_text(&file)?.unwrap_or_default();
            let public = public_key(&text)
                .map_err(|why| PackageError::new(format!("`{}` is no public key: {why}", file.display())))?;
            let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            keys.push(TrustedKey { name, public: public.to_base64(), place: file });
        }
    }
    Ok(keys)
}

fn check_owner(path: &Path) -> Result<()> {
    let meta = fs::metadata(path).map_err(|error| PackageError::of_file("read", path, &error))?;
    let user = rustix::process::geteuid().as_raw();
    if (meta.uid() == user || meta.uid() == 0) && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(PackageError::new(format!("others can write `{}`, so no key there can be trusted", path.display()))
        .hint(format!("chmod go-w {}", path.display())))
}

/// Reads a public key: a file of minisign's, or its one line.
fn public_key(text: &str) -> std::result::Result<PublicKey, String> {
    let line = text.trim();
    if line.contains('\n') {
        PublicKeyBox::from_string(line).and_then(PublicKeyBox::into_public_key)
    } else {
        PublicKey::from_base64(line)
    }
    .map_err(|error| error.to_string())
}

/// Whether a text is a public key, in the one form in which keys are written here.
#[must_use]
pub fn is_public_key(text: &str) -> bool {
    PublicKey::from_base64(text).is_ok_and(|key| key.to_base64() == text)
}

/// The id as minisign writes it.
fn id(number: &[u8]) -> String {
    number.iter().rev().map(|byte| format!("{byte:02X}")).collect()
}

/// Compares bytes with their signature.
#[must_use]
pub fn check(bytes: &[u8], signature: Option<&str>, keys: &[TrustedKey]) -> Signed {
    let Some(text) = signature else { return Signed::Not };
    let signature = match SignatureBox::from_string(text.trim_end()) {
        Ok(signature) => signature,
        Err(error) => return Signed::Wrong(format!("it is no signature of minisign's: {error}")),
    };
    let mut wrong = None;
    for key in keys {
        let Ok(public) = PublicKey::from_base64(&key.public) else { continue };
        if public.keynum() != signature.keynum() {
            continue;
        }
        match minisign::verify(&public, &signature, Cursor::new(bytes), true, false, true) {
            Ok(()) => return Signed::By(key.clone()),
            Err(_) => wrong = Some(format!("the signature of key `{}` does not fit the bytes", key.name)),
        }
    }
    wrong.map_or_else(|| Signed::ByStranger(id(signature.keynum())), Signed::Wrong)
}

/// Makes a pair of keys: `FILE` (secret, readable by its owner alone) and `FILE.pub`. Answers the public key's file.
///
/// # Errors
/// One of the files is there already, or cannot be written.
pub fn generate(file: &Path, password: Option<String>) -> Result<PathBuf> {
    let mut public_file = file.as_os_str().to_owned();
    public_file.push(".pub");
    let public_file = PathBuf::from(public_file);
    if let Some(there) = [file, &public_file].into_iter().find(|path| path.exists()) {
        return Err(PackageError::new(format!("`{}` is there already", there.display()))
            .hint("what was signed with a key needs it for ever: choose another name"));
    }
    let failed = |error: minisign::PError| PackageError::new(format!("cannot make keys: {error}"));
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password)),
        None => KeyPair::generate_unencrypted_keypair(),
    }
    .map_err(failed)?;
    let number = id(pair.pk.keynum());
    let secret = pair.sk.to_box(Some(&format!("maddock secret key {number}"))).map_err(failed)?;
    let public = format!("untrusted comment: minisign public key {number}\n{}\n", pair.pk.to_base64());
    if let Some(directory) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(|error| PackageError::of_file("make", directory, &error))?;
    }
    replace(file, secret.into_string().as_bytes(), 0o600)?;
    replace(&public_file, public.as_bytes(), 0o644)?;
    Ok(public_file)
}

/// Whether a secret key is protected by a password.
///
/// # Errors
/// It is no secret key.
pub fn needs_password(key: &Path) -> Result<bool> {
    let text = secret_text(key)?;
    let boxed = SecretKeyBox::from_string(&text).map_err(|error| no_secret_key(key, &error))?;
    Ok(boxed.into_unencrypted_secret_key().is_err())
}

fn no_secret_key(key: &Path, error: &minisign::PError) -> PackageError {
    PackageError::new(format!("`{}` is no secret key of minisign's: {error}", key.display()))
        .hint("`maddock plugin keygen FILE` makes one")
}

fn secret_text(key: &Path) -> Result<String> {
    read_text(key)?.ok_or_else(|| {
        PackageError::new(format!("there is no key `{}`", key.display())).hint("`maddock plugin keygen FILE` makes one")
    })
}

/// Signs a component that has a usable manifest; writes `FILE.sig` and answers its path.
///
/// # Errors
/// No component, no key, or a wrong password.
pub fn sign(file: &Path, key: &Path, password: Option<String>) -> Result<PathBuf> {
    let bytes = read_at_most(file, super::LARGEST_COMPONENT)?;
    let manifest = Manifest::of_component(&bytes)
        .map_err(|message| PackageError::new(format!("`{}` is no plugin: {message}", file.display())))?;
    let text = secret_text(key)?;
    let boxed = || SecretKeyBox::from_string(&text).map_err(|error| no_secret_key(key, &error));
    let secret = match password {
        Some(password) => boxed()?
            .into_secret_key(Some(password))
            .map_err(|_| PackageError::new(format!("the password does not open `{}`", key.display())))?,
        None => boxed()?.into_unencrypted_secret_key().map_err(|error| no_secret_key(key, &error))?,
    };
    let comment = format!("{} {} {}", manifest.name, manifest.version, super::digest_of(&bytes));
    let signature =
        minisign::sign(None, &secret, Cursor::new(&bytes), Some(&comment), Some("signature of a maddock plugin"))
            .map_err(|error| PackageError::new(format!("cannot sign `{}`: {error}", file.display())))?;
    let mut path = file.as_os_str().to_owned();
    path.push(".sig");
    let path = PathBuf::from(path);
    replace(&path, signature.into_string().as_bytes(), 0o644)?;
    Ok(path)
}

/// Pins a public key, given as a file of minisign's or as its text, under a name. Answers the pin.
///
/// # Errors
/// It is no public key, or another key has the name.
pub fn trust(environment: &Environment, key: &str, name: Option<&str>) -> Result<TrustedKey> {
    let path = Path::new(key);
    let text = if path.is_file() { read_text(path)?.unwrap_or_default() } else { key.to_owned() };
    let public = public_key(&text).map_err(|why| {
        PackageError::new(format!("`{key}` is neither the file nor the text of a public key: {why}"))
            .hint("a public key's text begins with `RW`")
    })?;
    let named = name
        .map(str::to_owned)
        .or_else(|| path.is_file().then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned())).flatten());
    let name = named.unwrap_or_else(|| id(public.keynum()));
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(PackageError::new(format!("`{}` cannot be the name of a key", name.escape_debug()))
            .hint("letters, digits, `-`, `_` and `.`; `--name NAME` sets it"));
    }
    let directory = configuration(environment)
        .map(|directory| directory.join("keys"))
        .ok_or_else(|| PackageError::new("there is no place for keys: neither XDG_CONFIG_HOME nor HOME is set"))?;
    let place = directory.join(format!("{name}.pub"));
    let pinned = TrustedKey { name: name.clone(), public: public.to_base64(), place: place.clone() };
    if let Some(text) = read_text(&place)? {
        let same = public_key(&text).is_ok_and(|other| other.to_base64() == pinned.public);
        return if same {
            Ok(pinned)
        } else {
            Err(PackageError::new(format!("another key is pinned as `{name}` in `{}`", place.display()))
                .hint("remove that file first, or choose another name by `--name`"))
        };
    }
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|error| PackageError::of_file("make", &directory, &error))?;
    let text = format!("untrusted comment: minisign public key {}\n{}\n", id(public.keynum()), pinned.public);
    replace(&place, text.as_bytes(), 0o644)?;
    Ok(pinned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(place: &Path) -> Environment {
        [("XDG_CONFIG_HOME".to_owned(), place.display().to_string())].into_iter().collect()
    }

    fn plugin(place: &Path) -> PathBuf {
        // A component without anything but its manifest.
        let manifest =
            br#"{"schema":1,"name":"a","version":"0.1.0","kind":"target","interface":"maddock:plugin@0.1.0"}"#;
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        bytes.extend([0, u8::try_from(manifest.len() + 17).unwrap(), 16]);
        bytes.extend(b"maddock:manifest");
        bytes.extend(manifest);
        let path = place.join("a.wasm");
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn only_a_signature_by_a_pinned_key_over_these_bytes_counts() {
        let place = tempfile::tempdir().unwrap();
        let environment = environment(place.path());
        let file = plugin(place.path());
        let (mine, others) = (place.path().join("mine"), place.path().join("others"));
        let public = generate(&mine, None).unwrap();
        generate(&others, None).unwrap();
        assert!(generate(&mine, None).unwrap_err().message.contains("there already"));
        sign(&file, &mine, None).unwrap();
        let text = beside(&file).unwrap();
        let bytes = fs::read(&file).unwrap();
        let judge = |bytes: &[u8]| check(bytes, text.as_deref(), &trusted(&environment).unwrap());
        assert!(matches!(judge(&bytes), Signed::ByStranger(_)));
        trust(&environment, place.path().join("others.pub").to_str().unwrap(), None).unwrap();
        assert!(matches!(judge(&bytes), Signed::ByStranger(_)));
        let pinned = trust(&environment, public.to_str().unwrap(), Some("me")).unwrap();
        assert_eq!(judge(&bytes), Signed::By(pinned));
        let mut other = bytes.clone();
        other.push(0);
        assert!(matches!(judge(&other), Signed::Wrong(_)));
        assert!(matches!(check(&bytes, Some("garbage"), &[]), Signed::Wrong(_)));
        assert_eq!(check(&bytes, None, &[]), Signed::Not);
    }

    #[test]
    fn a_key_id_is_not_a_key() {
        let place = tempfile::tempdir().unwrap();
        let file = plugin(place.path());
        let (mine, forger) = (place.path().join("mine"), place.path().join("forger"));
        generate(&mine, None).unwrap();
        generate(&forger, None).unwrap();
        sign(&file, &forger, None).unwrap();
        let bytes = fs::read(&file).unwrap();
        // The forger's signature with the id of the trusted key written over its own.
        let public = public_key(&fs::read_to_string(place.path().join("mine.pub")).unwrap()).unwrap();
        let text = beside(&file).unwrap().unwrap();
        let key = TrustedKey { name: "me".to_owned(), public: public.to_base64(), place: PathBuf::new() };
        let forged = with_id(&text, public.keynum());
        assert!(matches!(check(&bytes, Some(&forged), &[key]), Signed::Wrong(_)));
    }

    /// The signature's line is base64 of algorithm (2 bytes), id (8) and signature (64).
    fn with_id(text: &str, number: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let bits: Vec<u8> = lines[1]
            .bytes()
            .filter_map(|byte| ALPHABET.iter().position(|letter| *letter == byte))
            .flat_map(|value| (0..6).rev().map(move |bit| u8::from(value >> bit & 1 == 1)))
            .collect();
        let mut bytes: Vec<u8> =
            bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)).collect();
        bytes[2..10].copy_from_slice(number);
        let bits: Vec<u8> =
            bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).chain([0; 4]).collect();
        let mut coded: String = bits
            .chunks_exact(6)
            .map(|bits| char::from(ALPHABET[bits.iter().fold(0_usize, |value, bit| value << 1 | usize::from(*bit))]))
            .collect();
        while !coded.len().is_multiple_of(4) {
            coded.push('=');
        }
        lines[1] = coded;
        lines.join("\n")
    }

    #[test]
    fn a_key_with_a_password_needs_it() {
        let place = tempfile::tempdir().unwrap();
        let file = plugin(place.path());
        let key = place.path().join("key");
        generate(&key, Some("sesame".to_owned())).unwrap();
        assert!(needs_password(&key).unwrap());
        assert!(sign(&file, &key, None).is_err());
        assert!(sign(&file, &key, Some("wrong".to_owned())).is_err());
        sign(&file, &key, Some("sesame".to_owned())).unwrap();
    }

    #[test]
    fn a_key_that_others_may_write_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let environment = environment(place.path());
        let public = generate(&place.path().join("k"), None).unwrap();
        let pinned = trust(&environment, public.to_str().unwrap(), None).unwrap();
        fs::set_permissions(&pinned.place, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(trusted(&environment).unwrap_err().message.contains("others can write"));
    }
}
