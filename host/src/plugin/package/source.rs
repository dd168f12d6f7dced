//! Where plugins come from: a component file, a directory of them, a bundle, a registry. What is read here is judged as a
//! whole before anything is written.

use std::path::{Path, PathBuf};

use super::signature::{self, Signed, TrustedKey};
use super::store::{Arrival, Installed};
use super::{LARGEST_COMPONENT, PackageError, Result, digest_of, read_at_most};
use crate::plugin::manifest::Manifest;

/// A component that may be installed.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The text of its signature.
    pub signature: Option<String>,
    /// Where it came from, for index and lock.
    pub source: String,
}

impl Candidate {
    /// What it says about itself.
    ///
    /// # Errors
    /// It has no usable manifest.
    pub fn manifest(&self) -> Result<Manifest> {
        Manifest::of_component(&self.bytes)
            .map_err(|message| PackageError::new(format!("`{}`: {message}", self.source)))
    }

    /// Judges it: manifest, digest, signature.
    ///
    /// # Errors
    /// No usable manifest, or a signature that is wrong.
    pub fn arrive(self, keys: &[TrustedKey], time: &str) -> Result<(Arrival, Signed)> {
        let manifest = self.manifest()?;
        let signed = signature::check(&self.bytes, self.signature.as_deref(), keys);
        if let Signed::Wrong(why) = &signed {
            return Err(PackageError::new(format!("`{}`: {why}", self.source))
                .hint("the file is not the one that was signed: get it again, or ask whoever signed it"));
        }
        let installed = Installed {
            digest: digest_of(&self.bytes),
            size: self.bytes.len() as u64,
            source: self.source,
            signer: signed.signer().map(str::to_owned),
            time: time.to_owned(),
            manifest,
        };
        Ok((Arrival { installed, bytes: self.bytes, signature: self.signature }, signed))
    }
}

/// Reads one component file and the signature beside it.
///
/// # Errors
/// It cannot be read.
pub fn of_file(path: &Path) -> Result<Candidate> {
    let bytes = read_at_most(path, LARGEST_COMPONENT)?;
    let source = path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
    Ok(Candidate { bytes, signature: signature::beside(path)?, source })
}

/// Reads every component file of a directory, not of those below it.
///
/// # Errors
/// It cannot be read, or there is none.
pub fn of_directory(directory: &Path) -> Result<Vec<Candidate>> {
    let cannot = |error: std::io::Error| PackageError::of_file("read", directory, &error);
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        files.push(entry.map_err(cannot)?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wasm") && path.is_file());
    files.sort();
    if files.is_empty() {
        return Err(PackageError::new(format!("there is no `.wasm` file in `{}`", directory.display())));
    }
    files.iter().map(|file| of_file(file)).collect()
}
