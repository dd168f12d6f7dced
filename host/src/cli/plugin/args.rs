//! The command line of `maddock plugin`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::args::Common;
use crate::plugin::manifest::Kind;

/// `plugin …`
#[derive(Debug, Subcommand)]
pub enum PluginAction {
    /// List the plugins that there are
    List {
        /// Installed plugins that are not used here, too: versions that were superseded, names of built-in plugins
        #[arg(long)]
        all: bool,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Show what a plugin is, imports and asks for, and what policy says of it, without running it
    Inspect {
        /// A name from the list, or a component file
        plugin: String,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Install plugins for this user; grants them nothing
    Install {
        /// A component file, a directory or tar file of them, a bundle, or `oci://REGISTRY/REPO:TAG[@DIGEST]`
        #[arg(required = true, value_name = "SOURCE")]
        sources: Vec<String>,
        /// What they may be and what is done with them.
        #[command(flatten)]
        consent: Consent,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Get installed plugins again from where they came from, and show what they ask for more than before
    Update {
        /// Names from the list; all that came from elsewhere, where none is given
        names: Vec<String>,
        /// What they may be and what is done with them.
        #[command(flatten)]
        consent: Consent,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Remove installed plugins
    Remove {
        /// Names, digests, or beginnings of digests of at least eight digits
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Check what is installed: digests, signatures, lock file, and that it loads
    Verify {
        /// Names of installed plugins, or component files; all that are installed, where none is given
        names: Vec<String>,
        /// Find fault with what no trusted key has signed
        #[arg(long)]
        require_signature: bool,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Pin installed plugins by digest in `maddock.lock` of the working directory
    Lock {
        /// Names of installed plugins; all that are installed, where none is given
        names: Vec<String>,
        /// Use the plugin of this name in the place of a built-in one
        #[arg(long, value_name = "BUILT-IN=NAME")]
        r#override: Vec<String>,
        /// Take the pin of this name back; pins nothing unless names are given, too
        #[arg(long, value_name = "NAME")]
        drop: Vec<String>,
        /// Use this built-in plugin again, and nothing in its place
        #[arg(long, value_name = "BUILT-IN")]
        drop_override: Vec<String>,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Remove compiled plugins that nothing needs any more
    Prune {
        /// Remove all of them; the next run compiles what it uses
        #[arg(long)]
        all: bool,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Make a pair of keys in minisign's format
    Keygen {
        /// File of the secret key; the public one goes to FILE.pub
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Protect the secret key by nothing but the file's permissions
        #[arg(long)]
        no_password: bool,
        /// A file with the password, instead of asking on the terminal
        #[arg(long, value_name = "FILE", conflicts_with = "no_password")]
        password_file: Option<PathBuf>,
    },
    /// Sign a component: writes FILE.sig
    Sign {
        /// The component
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The secret key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// A file with the key's password, instead of asking on the terminal
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Trust a public key for this user
    Trust {
        /// A public key: its file or its text
        #[arg(value_name = "KEY")]
        key: String,
        /// What to call it
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Put a component and the signature beside it into an OCI registry
    Push {
        /// The component
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where to: `oci://REGISTRY/REPO:TAG`
        #[arg(value_name = "PLACE")]
        place: String,
        /// Speak to a registry that is not on this machine without TLS
        #[arg(long)]
        plain_http: bool,
    },
    /// Pack installed plugins, signatures, public keys, policy and lock into one file for a site without network
    Bundle {
        /// The file to write
        #[arg(value_name = "OUT.tar")]
        output: PathBuf,
        /// Names of installed plugins; all that are installed, where none is given
        names: Vec<String>,
        /// A policy file to take along
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Write a new plugin project that builds by itself
    New {
        /// What it is to do
        #[arg(value_name = "KIND", value_parser = kind)]
        kind: Kind,
        /// Its name, and that of the directory: `[a-z][a-z0-9-]*`
        name: String,
        /// In which language
        #[arg(long, default_value = "rust", value_parser = ["rust", "python"])]
        lang: String,
        /// Where to make the directory
        #[arg(long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },
    /// Put the interface and the SDK of this maddock into a plugin's project, or replace those of an earlier one
    Vendor {
        /// The project
        #[arg(long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },
    /// Put a manifest into a component that was built without one
    Pack {
        /// The component
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The manifest
        #[arg(long, value_name = "FILE", default_value = "plugin.json")]
        manifest: PathBuf,
        /// The file to write; the component itself, where none is given
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Run the conformance suite of a plugin's kind against a scripted host
    Test {
        /// A name from the list, or a component file
        plugin: String,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
}

/// How plugins are taken in.
#[derive(Debug, clap::Args)]
pub struct Consent {
    /// Agree to wider requests than those of the version that was installed before, or to another signer
    #[arg(long)]
    pub accept_requests: bool,
    /// Write what they ask for into this user's policy file
    #[arg(long)]
    pub grant: bool,
    /// Refuse what no trusted key has signed
    #[arg(long)]
    pub require_signature: bool,
    /// Pin them in `maddock.lock` of the working directory
    #[arg(long)]
    pub lock: bool,
    /// Speak to a registry that is not on this machine without TLS
    #[arg(long)]
    pub plain_http: bool,
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind.word() == text)
        .ok_or_else(|| format!("kinds are {}", Kind::ALL.map(Kind::word).join(", ")))
}
