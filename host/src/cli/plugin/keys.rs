//! `maddock plugin keygen|sign|trust`

use std::io::IsTerminal;
use std::path::Path;

use super::failed;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::plugin::Environment;
use crate::plugin::package::signature;

/// Makes a pair of keys.
///
/// # Errors
/// A file is there already; no password can be had: exit 1, 4.
pub fn generate(file: &Path, no_password: bool, password_file: Option<&Path>) -> Outcome {
    let password = if no_password { None } else { Some(password(password_file, true)?) };
    let public = signature::generate(file, password).map_err(|error| failed(&error))?;
    println!("secret key  {} (keep it to yourself)", file.display());
    println!("public key  {} (give it to whoever should trust you)", public.display());
    Ok(Exit::Success)
}

/// Signs a component.
///
/// # Errors
/// No component, no key, a wrong password: exit 1.
pub fn sign(file: &Path, key: &Path, password_file: Option<&Path>) -> Outcome {
    let needed = signature::needs_password(key).map_err(|error| failed(&error))?;
    let password = if needed { Some(password(password_file, false)?) } else { None };
    let signature = signature::sign(file, key, password).map_err(|error| failed(&error))?;
    println!("signed: {}", signature.display());
    Ok(Exit::Success)
}

/// Pins a public key.
///
/// # Errors
/// It is none, or its name is taken: exit 1.
pub fn trust(key: &str, name: Option<&str>) -> Outcome {
    let pinned = signature::trust(&Environment::of_process(), key, name).map_err(|error| failed(&error))?;
    println!("trusted: `{}` {} ({})", pinned.name, pinned.public, pinned.place.display());
    Ok(Exit::Success)
}

/// A password: the first line of a file, or what somebody types on the terminal.
fn password(file: Option<&Path>, twice: bool) -> Result<String, Failure> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::new(Exit::Failure, format!("cannot read `{}`: {error}", file.display())))?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Arguments, "the key needs a password, and nobody is here to type it")
            .hint("name a file with it by `--password-file FILE`, or make a key by `keygen --no-password`"));
    }
    let asked = |prompt: &str| {
        eprintln!("{prompt}");
        without_echo().map_err(|error| Failure::new(Exit::Failure, format!("cannot read the password: {error}")))
    };
    let password = asked("password of the secret key:")?;
    if twice && asked("once more:")? != password {
        return Err(Failure::new(Exit::Failure, "the two passwords differ"));
    }
    Ok(password)
}

/// A line that the terminal does not show.
fn without_echo() -> std::io::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &silent)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Now, &before)?;
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
