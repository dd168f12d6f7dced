//! `maddock plugin install|update`: reads everything, judges everything, and only then writes. Grants nothing, unless
//! `--grant` asks for it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::Consent;
use super::{failed, project, store};
use crate::capability::events::printable;
use crate::capability::gate::Identity;
use crate::capability::policy::Roots;
use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::setup::Setup;
use crate::cli::style;
use crate::plugin::catalog::{Catalog, Entry};
use crate::plugin::manifest::{Kind, Manifest, Request};
use crate::plugin::package::PackageError;
use crate::plugin::package::bundle::{self, Archive, Bundle};
use crate::plugin::package::grants::{self, Granting, Judged};
use crate::plugin::package::lock::{self, Lock, Pin};
use crate::plugin::package::registry::{self, Place};
use crate::plugin::package::signature::{self, Signed};
use crate::plugin::package::source::{self, Candidate};
use crate::plugin::package::store::{Arrival, Installed, is_meant};

/// Installs.
///
/// # Errors
/// A source that cannot be read, is no plugin, or is not signed as asked: exit 1; wider requests without consent: exit 5.
pub async fn install(sources: &[String], consent: &Consent, common: &Common) -> Outcome {
    let mut candidates = Vec::new();
    for source in sources {
        candidates.extend(read(source, consent).await?);
    }
    take_in(candidates, consent, common)
}

/// Gets what is installed again from where it came from: of each name the version that was installed last.
///
/// # Errors
/// As [`install`].
pub async fn update(names: &[String], consent: &Consent, common: &Common) -> Outcome {
    let (store, _) = store()?;
    let plugins = store.read().map_err(|error| failed(&error))?;
    if let Some(name) = names.iter().find(|name| !plugins.iter().any(|plugin| is_meant(plugin, name))) {
        return Err(Failure::new(Exit::Failure, format!("no plugin `{name}` is installed"))
            .hint("`maddock plugin list` shows the plugins that there are"));
    }
    let mut candidates = Vec::new();
    for (source, followed) in sources(&plugins, names) {
        let found = read(&source, consent).await?;
        candidates.extend(newer(found, &source, &followed).map_err(|error| failed(&error))?);
    }
    if candidates.is_empty() {
        println!("nothing new");
        return Ok(Exit::Success);
    }
    take_in(candidates, consent, common)
}

/// Where to look for what: each source once, with the plugins that are followed there. A version that was superseded is not
/// followed, since its place may be gone, or hold something else by now.
fn sources<'a>(plugins: &'a [Installed], names: &[String]) -> Vec<(String, Vec<&'a Installed>)> {
    let asked = |name: &str| {
        names.is_empty()
            || plugins.iter().any(|one| one.manifest.name == name && names.iter().any(|asked| is_meant(one, asked)))
    };
    let mut sources: Vec<(String, Vec<&Installed>)> = Vec::new();
    for (at, plugin) in plugins.iter().enumerate() {
        let name = &plugin.manifest.name;
        let superseded = plugins.iter().skip(at + 1).any(|later| later.manifest.name == *name);
        if superseded || !asked(name) {
            continue;
        }
        let source = match Place::parse(&plugin.source) {
            Ok(place) => place.newer().to_string(),
            Err(_) => plugin.source.clone(),
        };
        match sources.iter_mut().find(|(other, _)| *other == source) {
            Some((_, followed)) => followed.push(plugin),
            None => sources.push((source, vec![plugin])),
        }
    }
    sources
}

/// What a source has of the plugins that are followed there, and that is not what is installed. Others of a bundle are none of
/// an update's business.
fn newer(found: Vec<Candidate>, source: &str, followed: &[&Installed]) -> Result<Vec<Candidate>, PackageError> {
    let mut newer = Vec::new();
    let mut there = Vec::new();
    for candidate in found {
        let name = candidate.manifest()?.name;
        if let Some(plugin) = followed.iter().find(|plugin| plugin.manifest.name == name) {
            if plugin.digest != crate::plugin::package::digest_of(&candidate.bytes) {
                newer.push(candidate);
            }
            there.push(name);
        }
    }
    for plugin in followed.iter().filter(|plugin| !there.contains(&plugin.manifest.name)) {
        eprintln!("there is no `{}` any more in {}", plugin.manifest.name, printable(source));
    }
    Ok(newer)
}

async fn read(source: &str, consent: &Consent) -> Result<Vec<Candidate>, Failure> {
    if source.starts_with(registry::SCHEME) {
        let place = Place::parse(source).map_err(|error| failed(&error))?;
        let candidate = registry::pull(&place, consent.plain_http).await.map_err(|error| failed(&error))?;
        return Ok(vec![candidate]);
    }
    let path = Path::new(source);
    let found = if path.is_dir() {
        source::of_directory(path)
    } else if path.is_file() && bundle::is_tar(path).map_err(|error| failed(&error))? {
        match Archive::read(path) {
            Ok(Archive::Bundle(bundle)) => Ok(told(&bundle, path)),
            Ok(Archive::Plain(components)) => Ok(components.candidates(&absolute(path))),
            Err(error) => Err(error),
        }
    } else {
        source::of_file(path).map(|candidate| vec![candidate])
    };
    found.map_err(|error| failed(&error))
}

/// The plugins of a bundle. What else is in it is told, and used by nobody but the person who reads it.
fn told(bundle: &Bundle, path: &Path) -> Vec<Candidate> {
    let others: Vec<&str> =
        bundle.files.keys().map(String::as_str).filter(|path| !path.starts_with("plugins/")).collect();
    if !others.is_empty() {
        eprintln!(
            "the bundle also has {}; look at them and take them over yourself: tar -xf {}",
            others.join(", "),
            path.display()
        );
    }
    bundle.candidates(&absolute(path))
}

fn absolute(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn take_in(candidates: Vec<Candidate>, consent: &Consent, common: &Common) -> Outcome {
    let setup = Setup::bare()?;
    let (store, environment) = store()?;
    let plugins = store.read().map_err(|error| failed(&error))?;
    let keys = signature::trusted(&environment).map_err(|error| failed(&error))?;
    let time = jiff::Timestamp::now().to_string();
    let mut arrivals: Vec<(Arrival, Signed)> = Vec::new();
    for candidate in candidates {
        let (arrival, signed) = candidate.arrive(&keys, &time).map_err(|error| failed(&error))?;
        check(&setup, &arrival, &signed, &arrivals, consent)?;
        arrivals.push((arrival, signed));
    }
    let wider: Vec<Wider<'_>> = arrivals.iter().filter_map(|(arrival, _)| wider(&plugins, arrival)).collect();
    agree(&wider, consent)?;
    // What would break the policy, or is broken already, is found out before anything is written.
    let granting = consent.grant.then(|| granting(&setup, &environment, &arrivals)).transpose()?;
    let writes: Vec<Arrival> = arrivals.iter().map(|(arrival, _)| arrival.clone()).collect();
    let project = project()?;
    let mut lock = Lock::read(&project).map_err(|error| failed(&error))?;
    store.add(&writes).map_err(|error| failed(&error))?;
    if consent.lock {
        let lock = lock.get_or_insert_default();
        arrivals.iter().for_each(|(arrival, _)| lock.put(Pin::of(&arrival.installed)));
        lock.write(&project).map_err(|error| failed(&error))?;
    }
    let granted = granting.map(|granting| grant(&setup, &granting, &arrivals)).transpose()?;
    let builder = setup.plugins.catalog().of_kind(Kind::Builder).next().map(|entry| entry.identity.name.as_str());
    let circumstances = Circumstances { lock: lock.as_ref(), builder, environment: &environment };
    say(&arrivals, &circumstances, granted.as_ref(), common.format);
    Ok(Exit::Success)
}

/// Who asks at the gate for what arrives.
fn identity(installed: &Installed) -> Identity {
    Identity {
        name: installed.manifest.name.clone(),
        digest: installed.digest.clone(),
        built_in: false,
        signer: installed.signer.clone(),
    }
}

fn granting(
    setup: &Setup,
    environment: &crate::plugin::Environment,
    arrivals: &[(Arrival, Signed)],
) -> Result<Granting, Failure> {
    let identities: Vec<Identity> = arrivals.iter().map(|(arrival, _)| identity(&arrival.installed)).collect();
    let manifests = arrivals.iter().map(|(arrival, _)| &arrival.installed.manifest);
    let components: Vec<(&Identity, &Manifest)> = identities.iter().zip(manifests).collect();
    let granting = Granting::of(environment, &components).map_err(|error| failed(&error))?;
    setup.policy(Roots::default())?;
    Ok(granting)
}

/// What came of `--grant`.
struct Granted {
    /// The file, where something was to be added.
    written: Option<PathBuf>,
    /// What is refused all the same: plugin, call and rule, and what would allow it.
    refused: Vec<(String, Option<String>)>,
}

/// Writes the grants and asks the policy in force what they are worth: a site, a denial or a project may refuse all the same.
fn grant(setup: &Setup, granting: &Granting, arrivals: &[(Arrival, Signed)]) -> Result<Granted, Failure> {
    let written = granting.write().map_err(|error| failed(&error))?.map(Path::to_owned);
    let mut refused = Vec::new();
    for (arrival, _) in arrivals {
        let installed = &arrival.installed;
        let load = |roots| setup.policy(roots).map_err(|failure| PackageError::new(failure.message));
        let judged = grants::judge(&identity(installed), &installed.manifest, load).map_err(|error| failed(&error))?;
        for judged in judged {
            if let Judged::Refused { why, remedy } = judged {
                refused.push((format!("{}: {why}", installed.manifest.name), remedy));
            }
        }
    }
    Ok(Granted { written, refused })
}

/// The version that counted so far.
fn before<'a>(plugins: &'a [Installed], arrival: &Installed) -> Option<&'a Installed> {
    plugins.iter().rev().find(|plugin| plugin.manifest.name == arrival.manifest.name)
}

/// What a new version has more than the one before.
struct Wider<'a> {
    arrival: &'a Arrival,
    requests: Vec<Request>,
    /// Who signed the one before, where that is somebody else now, or nobody.
    signer: Option<&'a str>,
}

fn wider<'a>(plugins: &'a [Installed], arrival: &'a Arrival) -> Option<Wider<'a>> {
    let after = &arrival.installed;
    let before = before(plugins, after)?;
    let requests = grants::widened(&before.manifest, &after.manifest);
    let changed = before.digest != after.digest && before.signer != after.signer;
    let signer = before.signer.as_deref().filter(|_| changed);
    (!requests.is_empty() || signer.is_some()).then_some(Wider { arrival, requests, signer })
}

/// It fits this host, is signed as asked for, and is compiled now rather than in the middle of a run.
fn check(
    setup: &Setup,
    arrival: &Arrival,
    signed: &Signed,
    others: &[(Arrival, Signed)],
    consent: &Consent,
) -> Result<(), Failure> {
    let name = &arrival.installed.manifest.name;
    if others.iter().any(|(other, _)| other.installed.manifest.name == *name) {
        return Err(Failure::new(Exit::Failure, format!("two of these are called `{name}`")));
    }
    if consent.require_signature && signed.signer().is_none() {
        return Err(Failure::new(
            Exit::Failure,
            format!("`{name}` is not signed by a trusted key: {}", signed.words()),
        )
        .hint("`maddock plugin trust KEY` trusts a key; its owner tells you the key on another way than the plugin"));
    }
    grants::check(&arrival.installed.manifest).map_err(|(message, hint)| {
        Failure::new(Exit::Failure, format!("`{name}`: {}", printable(&message))).maybe_hint(hint)
    })?;
    let entry = Entry::of_bytes(Path::new(&arrival.installed.source), arrival.bytes.clone());
    entry
        .and_then(|entry| setup.plugins.engine().load(&entry))
        .map(|_| ())
        .map_err(|error| Failure::of_plugin(Exit::Failure, &error))
}

/// Wider requests and another signer need somebody's consent. Nothing is asked where nobody sits at a terminal.
fn agree(wider: &[Wider<'_>], consent: &Consent) -> Result<(), Failure> {
    if wider.is_empty() {
        return Ok(());
    }
    for Wider { arrival, requests, signer } in wider {
        let manifest = &arrival.installed.manifest;
        let title = format!("{} {}", manifest.name, printable(&manifest.version));
        if let Some(signer) = signer {
            eprintln!(
                "{title} is signed by {},",
                arrival.installed.signer.as_deref().unwrap_or("nobody who is trusted")
            );
            eprintln!("  and the installed version by {signer}");
        }
        if !requests.is_empty() {
            eprintln!("{title} asks for more than the installed version:");
        }
        for request in requests {
            eprintln!("  {}", printable(&request.calls.join(", ")));
            for (name, values) in &request.scope {
                eprintln!("      {}: {}", printable(name), printable(&values.join(", ")));
            }
            because(&request.reason).iter().for_each(|line| eprintln!("{line}"));
        }
    }
    if consent.accept_requests {
        return Ok(());
    }
    let refused = Failure::new(Exit::Refused, "this was not agreed to, and nothing was installed")
        .hint("agree by `--accept-requests`; policy still decides what is allowed");
    if !std::io::stdin().is_terminal() {
        return Err(refused);
    }
    eprintln!("Install it all the same? [y/N]");
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    if matches!(line.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(refused) }
}

/// What there is to say about plugins beside what they are.
struct Circumstances<'a> {
    /// The lock here.
    lock: Option<&'a Lock>,
    /// The built-in builder.
    builder: Option<&'a str>,
    environment: &'a crate::plugin::Environment,
}

fn say(arrivals: &[(Arrival, Signed)], about: &Circumstances<'_>, granted: Option<&Granted>, format: Format) {
    if format == Format::Json {
        let list: serde_json::Value = arrivals
            .iter()
            .map(|(arrival, signed)| {
                let installed = &arrival.installed;
                let own = format!("{}: ", installed.manifest.name);
                let refused = granted.map(|granted| {
                    granted.refused.iter().filter_map(|(why, _)| why.strip_prefix(&own)).collect::<Vec<_>>()
                });
                json!({
                    "name": installed.manifest.name,
                    "version": installed.manifest.version,
                    "digest": installed.digest,
                    "source": installed.source,
                    "signer": signed.signer(),
                    "policy": grants::lines(&installed.manifest, &installed.digest),
                    "refused": refused,
                })
            })
            .collect();
        println!("{list:#}");
        return;
    }
    let palette = style::Palette::of_stdout();
    for (arrival, signed) in arrivals {
        let installed = &arrival.installed;
        let manifest = &installed.manifest;
        println!(
            "{} {} {} ({})",
            palette.good("installed:"),
            manifest.name,
            printable(&manifest.version),
            manifest.kind.word()
        );
        println!("  digest  {}", installed.digest);
        println!("  signed  {}", printable(&signed.words()));
        if installed.source.starts_with(registry::SCHEME) {
            println!("  from    {}", printable(&installed.source));
        }
        let name = &manifest.name;
        let built_in = Catalog::is_built_in(name);
        if let Some(builder) = about.builder.filter(|_| manifest.kind == Kind::Builder && !built_in) {
            println!("  Images are built by `{builder}` until a project's lock puts this in its place:");
            println!("  maddock plugin lock {name} --override {builder}={name}");
        }
        if built_in {
            println!("  It bears the name of a built-in plugin and is not used until a project's lock");
            println!("  file says so: maddock plugin lock {name} --override {name}={name}");
        }
        if let Some(pin) = about.lock.and_then(|lock| lock.pin(name)).filter(|pin| pin.digest != installed.digest) {
            println!("  {} here pins {name} {}, which stays in use until", lock::NAME, printable(&pin.version));
            println!("  maddock plugin lock {name}");
        }
    }
    if let Some(granted) = granted {
        return say_granted(granted);
    }
    let lines: String = arrivals
        .iter()
        .map(|(arrival, _)| grants::lines(&arrival.installed.manifest, &arrival.installed.digest))
        .collect();
    if !lines.is_empty() {
        let place = grants::user_policy(about.environment)
            .map_or("a policy file".to_owned(), |path| path.display().to_string());
        println!("\nInstalling grants nothing. What is asked for would be allowed by these lines,");
        println!("which `--grant` writes into {place}:");
        println!("\n{}", printable_lines(lines.trim_end()));
        let mut signers: Vec<&str> = arrivals.iter().filter_map(|(_, signed)| signed.signer()).collect();
        signers.dedup();
        for signer in signers {
            println!("\nIn the place of `digest` this grants it to every version that the key signs:");
            println!("signer = \"{signer}\"");
        }
    }
}

fn say_granted(granted: &Granted) {
    match (&granted.written, granted.refused.is_empty()) {
        (Some(path), true) => println!("granted what they ask for, in {}", path.display()),
        (None, true) => println!("nothing was to be granted that was not granted already"),
        (Some(path), false) => println!("wrote what they ask for into {}, and policy still refuses:", path.display()),
        (None, false) => println!("nothing was to be written, and policy still refuses:"),
    }
    for (why, remedy) in &granted.refused {
        println!("  {}", printable(why));
        remedy.iter().for_each(|remedy| println!("      {}", printable(remedy)));
    }
}

/// A plugin's reason, in lines for a terminal.
pub fn because(reason: &str) -> Vec<String> {
    let lines = grants::folded(&format!("because: {}", printable(reason)), 72);
    lines.into_iter().map(|line| format!("      {line}")).collect()
}

fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}
