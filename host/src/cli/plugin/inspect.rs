//! `maddock plugin list|inspect`

use serde_json::json;

use super::install::because;
use super::{failed, named};
use crate::capability::events::printable;
use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::setup::Setup;
use crate::cli::{style, table};
use crate::plugin::catalog::{Entry, Source};
use crate::plugin::package::grants::{self, Judged};
use crate::plugin::package::signature::{self, Signed, TrustedKey};
use crate::plugin::package::store::Store;

/// Lists what is used here; with `all` what is installed and is not, too.
///
/// # Errors
/// The store or the lock file is broken: exit 1.
pub fn list(all: bool, common: &Common) -> Outcome {
    let setup = Setup::new(common)?;
    let entries = setup.plugins.catalog().entries();
    let unused = unused(&setup)?;
    let listed = || {
        entries
            .iter()
            .map(|entry| (entry, None))
            .chain(unused.iter().filter(|_| all).map(|(entry, why)| (entry, Some(*why))))
    };
    if common.format == Format::Json {
        let list: serde_json::Value = listed()
            .map(|(entry, unused)| {
                let mut description = describe(entry);
                if let Some(object) = description.as_object_mut() {
                    object.insert("signer".to_owned(), json!(signer(entry)));
                    object.insert("unused".to_owned(), json!(unused));
                }
                description
            })
            .collect();
        println!("{list:#}");
        return Ok(Exit::Success);
    }
    let keys = signature::trusted(&setup.environment).map_err(|error| failed(&error))?;
    let rows: Vec<Vec<String>> = listed().map(|(entry, unused)| row(entry, unused, &keys)).collect();
    table::print("", &["Kind", "Name", "Version", "Interface", "Digest", "From", "Signer", "Requests"], &rows);
    if !all && !unused.is_empty() {
        eprintln!("{} more are installed and not used here; `--all` lists them", unused.len());
    }
    Ok(Exit::Success)
}

fn row(entry: &Entry, unused: Option<&str>, keys: &[TrustedKey]) -> Vec<String> {
    let digest: String = entry.identity.digest.chars().skip("sha256:".len()).take(12).collect();
    let interface = entry.manifest.interface.rsplit('@').next().unwrap_or_default();
    let from = unused.unwrap_or(match entry.source {
        Source::Embedded(_) => "built-in",
        Source::File(..) => "file",
        Source::Store(_) => "installed",
    });
    let signer = signer(entry).map(|public| {
        let trusted = keys.iter().find(|key| key.public == public);
        trusted.map_or_else(|| "not trusted".to_owned(), |key| key.name.clone())
    });
    vec![
        entry.manifest.kind.word().to_owned(),
        entry.identity.name.clone(),
        printable(&entry.manifest.version),
        interface.to_owned(),
        digest,
        from.to_owned(),
        signer.map_or_else(|| "-".to_owned(), |signer| printable(&signer)),
        calls(entry),
    ]
}

/// The public key that has signed a plugin: of an installed one as the index has it, which `verify` compares with the bytes.
fn signer(entry: &Entry) -> Option<String> {
    match &entry.source {
        Source::Embedded(_) => None,
        Source::File(..) => entry.signed().ok()?.signer().map(str::to_owned),
        Source::Store(stored) => stored.installed.signer.clone(),
    }
}

/// What is installed and not used here, and why.
fn unused(setup: &Setup) -> Result<Vec<(Entry, &'static str)>, Failure> {
    let Some(store) = Store::of(&setup.environment) else { return Ok(Vec::new()) };
    let used = setup.plugins.catalog().entries();
    let mut unused = Vec::new();
    for plugin in store.read().map_err(|error| failed(&error))? {
        if used.iter().any(|entry| entry.identity.digest == plugin.digest) {
            continue;
        }
        let by_name = used.iter().find(|entry| entry.identity.name == plugin.manifest.name);
        let why = match by_name {
            Some(entry) if entry.identity.built_in => "name of a built-in",
            Some(_) => "superseded",
            None => "not in the lock",
        };
        let entry = Entry::of_store(&store, &plugin).map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
        unused.push((entry, why));
    }
    Ok(unused)
}

/// The host interfaces that a plugin asks for, each once.
fn calls(entry: &Entry) -> String {
    let mut families: Vec<&str> = entry
        .manifest
        .requests
        .iter()
        .flat_map(|request| &request.calls)
        .map(|call| call.split('.').next().unwrap_or(call))
        .collect();
    families.sort_unstable();
    families.dedup();
    if families.is_empty() { "-".to_owned() } else { printable(&families.join(" ")) }
}

fn describe(entry: &Entry) -> serde_json::Value {
    json!({
        "name": entry.identity.name,
        "kind": entry.manifest.kind,
        "version": entry.manifest.version,
        "interface": entry.manifest.interface,
        "digest": entry.identity.digest,
        "source": entry.place(),
        "installed": matches!(entry.source, Source::Store(_)),
        "size": entry.size(),
        "description": entry.manifest.description,
        "provides": entry.manifest.provides,
        "requests": entry.manifest.requests,
    })
}

/// What the policy in force says of each request.
pub fn judge(setup: &Setup, entry: &Entry) -> Result<Vec<Judged>, Failure> {
    // Whoever has a wrong signature is told so elsewhere, and is judged as somebody without one.
    let who = entry.who().unwrap_or_else(|_| entry.identity.clone());
    let load =
        |roots| setup.policy(roots).map_err(|failure| crate::plugin::package::PackageError::new(failure.message));
    grants::judge(&who, &entry.manifest, load).map_err(|error| failed(&error))
}

/// Who signed a plugin.
pub fn signed(setup: &Setup, entry: &Entry) -> Result<Option<Signed>, Failure> {
    let keys = signature::trusted(&setup.environment).map_err(|error| failed(&error))?;
    let text = match &entry.source {
        Source::Embedded(_) => return Ok(None),
        Source::File(path, _) => signature::beside(path),
        Source::Store(stored) => stored.signature(),
    }
    .map_err(|error| failed(&error))?;
    let bytes = entry.bytes().map_err(|error| Failure::of_plugin(Exit::Failure, &error))?;
    Ok(Some(signature::check(bytes, text.as_deref(), &keys)))
}

/// Shows one.
///
/// # Errors
/// It is not there, or does not fit this host: exit 1.
pub fn inspect(plugin: &str, common: &Common) -> Outcome {
    let setup = Setup::new(common)?;
    let entry = named(&setup, plugin)?;
    let failure = |error| Failure::of_plugin(Exit::Failure, &error);
    let imports = setup.plugins.engine().imports(&entry).map_err(failure)?;
    let fits = setup.plugins.engine().load(&entry);
    let judged = judge(&setup, &entry)?;
    let signed = signed(&setup, &entry)?;
    let compiled = setup.plugins.engine().compiled_size(&entry).map_err(failure)?;
    if common.format == Format::Json {
        let mut description = describe(&entry);
        if let Some(object) = description.as_object_mut() {
            object.insert("imports".to_owned(), json!(imports));
            object.insert("usable".to_owned(), json!(fits.is_ok()));
            object.insert("compiled_size".to_owned(), json!(compiled));
            object.insert("signature".to_owned(), json!(signed.as_ref().map(Signed::words)));
            object.insert("signer".to_owned(), json!(signed.as_ref().and_then(Signed::signer)));
            let allowed: Vec<_> = judged.iter().map(|judged| matches!(judged, Judged::Allowed(_))).collect();
            object.insert("allowed".to_owned(), json!(allowed));
        }
        println!("{description:#}");
    } else {
        print(&entry, &imports, &judged, signed.as_ref(), compiled);
    }
    fits.map(|_| Exit::Success).map_err(failure)
}

fn print(entry: &Entry, imports: &[String], judged: &[Judged], signed: Option<&Signed>, compiled: usize) {
    let palette = style::Palette::of_stdout();
    let heading = |text: &str| palette.strong(text);
    let kind = entry.manifest.kind.word();
    println!("{} {} ({kind})", heading(&entry.identity.name), printable(&entry.manifest.version));
    println!("{}\n", printable(&entry.manifest.description));
    println!("{}  {}", heading("interface"), entry.manifest.interface);
    println!("{}     {}", heading("digest"), entry.identity.digest);
    println!("{}       {} bytes, {compiled} compiled", heading("size"), entry.size());
    println!("{}       {}", heading("from"), printable(&entry.place()));
    if let Some(signed) = signed {
        println!("{}     {}", heading("signed"), printable(&signed.words()));
    }
    println!("{}   {}", heading("provides"), printable(&entry.manifest.provides.join(", ")));
    println!("\n{}", heading("imports (what it can use at all)"));
    for name in imports.iter().filter(|name| !name.starts_with("wasi:")) {
        println!("  {}", printable(name));
    }
    println!("\n{}", heading("requests (what it asks for; policy decides)"));
    for (request, judged) in entry.manifest.requests.iter().zip(judged) {
        println!("  {}", printable(&request.calls.join(", ")));
        for (name, values) in &request.scope {
            // A line for each: values such as command lines have commas and blanks of their own.
            for value in values {
                println!("      {}: {}", printable(name), printable(value));
            }
        }
        because(&request.reason).iter().for_each(|line| println!("{line}"));
        match judged {
            Judged::Allowed(rules) => println!("      policy: {} ({})", palette.good("allowed"), rules.join(", ")),
            Judged::Refused { why, .. } => {
                println!("      policy: {} ({})", palette.warn("not allowed"), printable(why))
            }
        }
    }
    if entry.manifest.requests.is_empty() {
        println!("  nothing");
    }
}
