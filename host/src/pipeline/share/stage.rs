//! This program in the job's directory, where the nodes find it.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Whether a program brings all that it needs along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linkage {
    /// It does.
    Static,
    /// It needs the libraries of the machine that it was made for.
    Dynamic,
}

impl Linkage {
    /// As targets read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Dynamic => "dynamic",
        }
    }
}

/// A copy of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is, or will be.
    pub path: PathBuf,
    /// What it needs.
    pub linkage: Linkage,
}

/// Puts this program into a job's directory, under another name of the same file where that is possible. `dry`: only says
/// where it would be.
///
/// # Errors
/// It cannot be read, or not be written there.
pub fn program(directory: &Path, dry: bool) -> io::Result<Program> {
    let own = std::env::current_exe()?;
    let path = directory.join("bin").join("maddock");
    let program = Program { path, linkage: linkage(&own)? };
    if dry {
        return Ok(program);
    }
    fs::create_dir_all(directory.join("bin"))?;
    if fs::hard_link(&own, &program.path).is_err() {
        fs::copy(&own, &program.path)?;
        fs::set_permissions(&program.path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(program)
}

/// Reads a program's head: one that names an interpreter is loaded by it, with the libraries that are there.
fn linkage(path: &Path) -> io::Result<Linkage> {
    const INTERPRETER: u32 = 3;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is no program", path.display()));
    let mut file = fs::File::open(path)?;
    let mut head = [0_u8; 64];
    file.read_exact(&mut head)?;
    // Of 64 bits and little-endian, as all machines that this program is made for.
    if head.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return Err(broken());
    }
    let number = |at: usize, bytes: usize| {
        let part = head.get(at..at.saturating_add(bytes))?;
        Some(part.iter().rev().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)))
    };
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        return Err(broken());
    };
    for entry in 0..count {
        file.seek(SeekFrom::Start(table.saturating_add(entry.saturating_mul(size))))?;
        let mut kind = [0_u8; 4];
        file.read_exact(&mut kind)?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(Linkage::Dynamic);
        }
    }
    Ok(Linkage::Static)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_this_program_in_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let program = program(directory.path(), false).unwrap();
        assert!(fs::metadata(&program.path).unwrap().permissions().mode() & 0o100 != 0);
        let expected = if cfg!(target_feature = "crt-static") { Linkage::Static } else { Linkage::Dynamic };
        assert_eq!(program.linkage, expected);
    }

    #[test]
    fn what_is_no_program_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [b'#'; 100]).unwrap();
        assert!(linkage(file.path()).is_err());
    }
}
