//! The command line, declared once: help, completions and the reference in the docs come from here.
//!
//! Names, short forms and defaults are madengine's; names that only its documentation uses are hidden aliases.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::setup::Given;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    version,
    about = "Runs AI models anywhere: discover, build, run, report",
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 success, 1 failure, 2 build failed or usage, 3 a model failed, 4 arguments or context,\n\
                  5 refused by policy, 6 regression, 7 a replay differs, 130 interrupted"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One file of `cli/` for each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the models of a tree, or the ones that tags select
    Discover(Discover),
    /// Build the images of selected models and write a manifest
    Build(Box<Build>),
    /// Run selected models, or the ones of a manifest, and record their results
    Run(Box<Run>),
    /// List the runs of this directory, the newest first
    Runs(Runs),
    /// Say where the jobs of a run are
    Status(Status),
    /// Print the output of a run's jobs
    Logs(Logs),
    /// End the jobs of a run
    Cancel(Cancel),
    /// Follow a run to its end, as if it had been started here
    Attach(Attach),
    /// Record those jobs of a run that have ended
    Collect(Collect),
    /// Play a recorded run again, with no engine there, and compare
    Replay(Replay),
    /// Show what the plugins of a run asked for, and what came of it
    #[command(arg_required_else_help = true, subcommand_required = true)]
    Trace {
        /// What to show.
        #[command(subcommand)]
        action: TraceAction,
    },
    /// Turn result files into reports
    #[command(arg_required_else_help = true, subcommand_required = true)]
    Report {
        /// Which report.
        #[command(subcommand)]
        report: Report,
    },
    /// Show the effective configuration, and the presets that there are
    #[command(arg_required_else_help = true, subcommand_required = true)]
    Config {
        /// What to show.
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Install, inspect, sign, test and write plugins
    #[command(arg_required_else_help = true, subcommand_required = true)]
    Plugin {
        /// What to do with them.
        #[command(subcommand)]
        action: Box<super::plugin::args::PluginAction>,
    },
    /// Check, show and explain what plugins may do
    #[command(arg_required_else_help = true, subcommand_required = true)]
    Policy {
        /// What to do with it.
        #[command(subcommand)]
        action: PolicyAction,
    },
    /// Check this machine: plugins, accelerators, engines, programs
    Doctor(Doctor),
    /// Do one node's share of a job: started by targets on the nodes, not by people
    #[command(name = "__node", hide = true)]
    Node(Node),
    /// Not in this version: upload results to a database
    #[command(hide = true)]
    Database {
        /// Whatever is given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For machines
    Json,
}

/// Where the models are and which plugins there are: the same for every command.
#[derive(Debug, Args)]
pub struct Common {
    /// Read the model tree from here, in place (default: the working directory)
    // An empty variable is as good as none.
    #[arg(
        long,
        value_name = "DIR",
        env = "MODEL_DIR",
        hide_env_values = true,
        help_heading = "Common",
        value_parser = perhaps_empty()
    )]
    pub model_dir: Option<PathBuf>,
    /// Load a plugin from a component file as well; may be repeated
    #[arg(long = "plugin", value_name = "FILE", help_heading = "Common")]
    pub plugins: Vec<PathBuf>,
    /// Use no plugin that `maddock.lock` does not have
    #[arg(long, help_heading = "Common")]
    pub locked: bool,
    /// Tighten what plugins may do by a policy file; may be repeated
    #[arg(long = "policy", value_name = "FILE", help_heading = "Common")]
    pub policies: Vec<PathBuf>,
    /// Print `text` for people or `json` for programs
    // Their help would make every page of help twice as long.
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, help_heading = "Common")]
    pub format: Format,
    /// Say more about what is going on
    #[arg(long, short, help_heading = "Common")]
    pub verbose: bool,
}

/// Additional context, by file or text.
#[derive(Debug, Args)]
pub struct Context {
    /// Additional context: a JSON object or a Python dict
    #[arg(long, short = 'c', value_name = "TEXT", default_value = "{}")]
    pub additional_context: String,
    /// Additional context: a file with a JSON object; `-c` is laid over it
    #[arg(long, short = 'f', value_name = "FILE")]
    pub additional_context_file: Option<PathBuf>,
    /// Make unknown keys of the context an error
    #[arg(long)]
    pub strict: bool,
    /// Add a preset by name or by the path of a JSON file; may be repeated
    #[arg(long = "preset", value_name = "NAME")]
    pub presets: Vec<String>,
}

/// `discover`
#[derive(Debug, Args)]
pub struct Discover {
    /// Models to select: `name`, `tag`, `scope/tag`, `all`, with arguments as `name:key=value`
    #[arg(long, short, value_name = "TAG", num_args = 1..)]
    pub tags: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub common: Common,
}

/// `build`
#[derive(Debug, Args)]
pub struct Build {
    /// Models to select: `name`, `tag`, `scope/tag`, `all`, with arguments as `name:key=value`
    #[arg(long, short, value_name = "TAG", num_args = 1..)]
    pub tags: Vec<String>,
    /// Accelerator architectures: one image for each
    #[arg(long, short = 'a', value_name = "ARCH", num_args = 1..)]
    pub target_archs: Vec<String>,
    /// Not in this version: build and reuse what a list says
    #[arg(long, value_name = "FILE", hide = true)]
    pub batch_manifest: Option<PathBuf>,
    /// Not in this version: a manifest for an image that is there already
    #[arg(long, value_name = "IMAGE", hide = true)]
    pub use_image: Option<String>,
    /// Not in this version: build on a compute node
    #[arg(long, hide = true)]
    pub build_on_compute: bool,
    /// Push the images to this registry
    #[arg(long, short, value_name = "REGISTRY")]
    pub registry: Option<String>,
    /// Additional context.
    #[command(flatten)]
    pub context: Context,
    /// Build without the engine's cache
    #[arg(long)]
    pub clean_docker_cache: bool,
    /// Where to write the manifest
    #[arg(long, short, value_name = "FILE", default_value = "build_manifest.json")]
    pub manifest_output: PathBuf,
    /// Write a summary as JSON
    #[arg(long, short, value_name = "FILE")]
    pub summary_output: Option<PathBuf>,
    /// Show the builder's output as it comes
    #[arg(long, short)]
    pub live_output: bool,
    /// Print what would be built, and build nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The rest.
    #[command(flatten)]
    pub common: Common,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    /// Models to select: `name`, `tag`, `scope/tag`, `all`, with arguments as `name:key=value`
    #[arg(long, short, value_name = "TAG", num_args = 1..)]
    pub tags: Vec<String>,
    /// Run the images of this manifest; build first where it does not exist
    #[arg(long, short, value_name = "FILE", value_parser = perhaps_empty())]
    pub manifest_file: Option<PathBuf>,
    /// Push the images to this registry after building
    #[arg(long, short, value_name = "REGISTRY")]
    pub registry: Option<String>,
    /// Seconds for each model: -1 means 7200 or what the model says, 0 means no limit
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true)]
    pub timeout: i64,
    /// Additional context.
    #[command(flatten)]
    pub context: Context,
    /// Where to run: the name of a target, such as `docker` or `process`
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// How many jobs may run at once where they do not compete for devices
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write the texts of the plan, each as it would be handed in, to DIR/JOB/
    #[arg(long, value_name = "DIR", requires = "dry_run")]
    pub plan_output: Option<PathBuf>,
    /// Which privileges containers get
    #[arg(long, value_name = "PROFILE", value_parser = ["compatible", "restricted"])]
    pub container_profile: Option<String>,
    /// Print the run's id as soon as its jobs are launched, and let them go on
    #[arg(long, conflicts_with = "live_output")]
    pub detach: bool,
    /// What Ctrl-C does to launched jobs: `cancel` ends them, `detach` lets them go on
    #[arg(long, value_enum, value_name = "WHAT", default_value_t, hide_possible_values = true)]
    pub on_interrupt: OnInterrupt,
    /// Leave each job's container up afterwards
    #[arg(long)]
    pub keep_alive: bool,
    /// Keep each job's work directory
    #[arg(long)]
    pub keep_model_dir: bool,
    /// Build without the engine's cache
    #[arg(long)]
    pub clean_docker_cache: bool,
    /// Prepare everything, and do not run the models
    #[arg(long)]
    pub skip_model_run: bool,
    /// Where to write the manifest
    #[arg(long, value_name = "FILE", default_value = "build_manifest.json")]
    pub manifest_output: PathBuf,
    /// Write a summary as JSON
    #[arg(long, short, value_name = "FILE")]
    pub summary_output: Option<PathBuf>,
    /// Show the output of the models as it comes
    #[arg(long, short)]
    pub live_output: bool,
    /// Where to append results
    #[arg(long, short, value_name = "FILE", default_value = "perf.csv")]
    pub output: PathBuf,
    /// Not in this version: where data sources are described
    #[arg(long, value_name = "FILE", hide = true)]
    pub data_config: Option<PathBuf>,
    /// Not in this version: write down the system that a model ran on
    #[arg(long, hide = true)]
    pub sys_env_details: bool,
    /// Not in this version: mirror data below this directory
    #[arg(long, value_name = "DIR", hide = true)]
    pub force_mirror_local: Option<PathBuf>,
    /// Run models that are marked as deprecated too
    #[arg(long)]
    pub ignore_deprecated: bool,
    /// The table of tools that the context may name
    #[arg(long, value_name = "FILE", default_value = "./scripts/common/tools.json")]
    pub tools_config: PathBuf,
    /// Run models also where they say that they do not support the architecture
    #[arg(long)]
    pub disable_skip_gpu_arch: bool,
    /// Delete `perf_entry*` afterwards; `perf.csv` and `perf_super.*` stay
    #[arg(long)]
    pub cleanup_perf: bool,
    /// The rest.
    #[command(flatten)]
    pub common: Common,
}

/// What an interruption does to jobs that are launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OnInterrupt {
    /// They are ended
    #[default]
    Cancel,
    /// They go on, and `maddock attach` finds them
    Detach,
}

/// What all commands about earlier runs have in common.
#[derive(Debug, Args)]
pub struct Later {
    /// Load a plugin from a component file as well; may be repeated
    #[arg(long = "plugin", value_name = "FILE", help_heading = "Common")]
    pub plugins: Vec<PathBuf>,
    /// Use no plugin that `maddock.lock` does not have
    #[arg(long, help_heading = "Common")]
    pub locked: bool,
    /// Tighten what plugins may do by a policy file; may be repeated
    #[arg(long = "policy", value_name = "FILE", help_heading = "Common")]
    pub policies: Vec<PathBuf>,
    /// Print `text` for people or `json` for programs
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, help_heading = "Common")]
    pub format: Format,
    /// The same as `--format json`
    #[arg(long, conflicts_with = "format", help_heading = "Common")]
    pub json: bool,
    /// Say more about what is going on
    #[arg(long, short, help_heading = "Common")]
    pub verbose: bool,
}

impl Common {
    /// What it says of plugins.
    #[must_use]
    pub fn given(&self) -> Given {
        Given { plugins: self.plugins.clone(), policies: self.policies.clone(), locked: self.locked }
    }
}

impl Later {
    /// What it says of plugins.
    #[must_use]
    pub fn given(&self) -> Given {
        Given { plugins: self.plugins.clone(), policies: self.policies.clone(), locked: self.locked }
    }

    /// How to print.
    #[must_use]
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// `runs`
#[derive(Debug, Args)]
pub struct Runs {
    /// The rest.
    #[command(flatten)]
    pub later: Later,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// The run's id, the beginning of it, or `last`
    #[arg(value_name = "ID")]
    pub run: String,
    /// The rest.
    #[command(flatten)]
    pub later: Later,
}

/// `replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// The run's id, the beginning of it, `last`, or its directory
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Only the calls for this job, by id or model; may be repeated
    #[arg(long = "job", value_name = "JOB")]
    pub jobs: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub later: Later,
}

/// `trace`
#[derive(Debug, Subcommand)]
pub enum TraceAction {
    /// List the host calls of a run in the order of their ends
    Show {
        /// The run's id, the beginning of it, `last`, or its directory
        #[arg(value_name = "RUN", default_value = "last")]
        run: String,
        /// Only those of this plugin
        #[arg(long = "of", value_name = "NAME")]
        plugin: Option<String>,
        /// Only these, such as `docker.create-container` or `docker.*`
        #[arg(long, value_name = "CALL")]
        call: Option<String>,
        /// Only those that policy refused
        #[arg(long)]
        denied: bool,
        /// Requests and answers, from the run's recording
        #[arg(long, conflicts_with = "denied")]
        bodies: bool,
        /// Print `text` for people or `json` for programs, a line each
        #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
        format: Format,
        /// The same as `--format json`
        #[arg(long, conflicts_with = "format")]
        json: bool,
    },
    /// Count and time the host calls of a run, by plugin and call
    Stats {
        /// The run's id, the beginning of it, `last`, or its directory
        #[arg(value_name = "RUN", default_value = "last")]
        run: String,
        /// Print `text` for people or `json` for programs
        #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
        format: Format,
        /// The same as `--format json`
        #[arg(long, conflicts_with = "format")]
        json: bool,
    },
}

/// `logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// The run's id, the beginning of it, or `last`
    #[arg(value_name = "ID")]
    pub run: String,
    /// The job, or its model (default: all of the run)
    pub job: Option<String>,
    /// Go on until the job has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Print also where secrets cannot be masked, as their values are not here
    #[arg(long)]
    pub unredacted: bool,
    /// The rest.
    #[command(flatten)]
    pub later: Later,
}

/// `cancel`
#[derive(Debug, Args)]
pub struct Cancel {
    /// The run's id, the beginning of it, or `last`
    #[arg(value_name = "ID")]
    pub run: String,
    /// The jobs, or their models (default: all of the run)
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
    /// The rest.
    #[command(flatten)]
    pub later: Later,
}

/// `attach`
#[derive(Debug, Args)]
pub struct Attach {
    /// The run's id, the beginning of it, or `last`
    #[arg(value_name = "ID")]
    pub run: String,
    /// Show the output of the models as it comes
    #[arg(long, short)]
    pub live_output: bool,
    /// Go on also where secrets cannot be masked, as their values are not here
    #[arg(long)]
    pub unredacted: bool,
    /// The rest.
    #[command(flatten)]
    pub later: Later,
}

/// `collect`
#[derive(Debug, Args)]
pub struct Collect {
    /// The run's id, the beginning of it, or `last`
    #[arg(value_name = "ID")]
    pub run: String,
    /// Go on also where secrets cannot be masked, as their values are not here
    #[arg(long)]
    pub unredacted: bool,
    /// The rest.
    #[command(flatten)]
    pub later: Later,
}

/// `report …`
#[derive(Debug, Subcommand)]
pub enum Report {
    /// Turn one CSV file into an HTML table beside it
    ToHtml {
        /// The CSV file
        #[arg(long, visible_alias = "csv-file", value_name = "FILE")]
        csv_file_path: PathBuf,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Turn all CSV files of a directory into one HTML file for mailing
    ToEmail {
        /// The directory
        #[arg(long, visible_alias = "dir", value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// Name of the file to write in it
        #[arg(long, short, value_name = "FILE", default_value = "run_results.html")]
        output: PathBuf,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print the configuration that a run with the same options would have
    Show(Box<ConfigShow>),
    /// List the presets: those that apply by themselves, and those to ask for
    Presets {
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
}

/// `config show`
#[derive(Debug, Args)]
pub struct ConfigShow {
    /// Only this key, such as `slurm` or `distributed.nnodes`
    pub key: Option<String>,
    /// Print where every value came from
    #[arg(long)]
    pub origin: bool,
    /// Print JSON: the same as `--format json`
    #[arg(long)]
    pub json: bool,
    /// Models that a run would select: what they agree on counts for presets
    #[arg(long, short, value_name = "TAG", num_args = 1..)]
    pub tags: Vec<String>,
    /// Show what a run of this manifest would have
    #[arg(long, short, value_name = "FILE", value_parser = perhaps_empty())]
    pub manifest_file: Option<PathBuf>,
    /// Additional context.
    #[command(flatten)]
    pub context: Context,
    /// Where to run: the name of a target, such as `docker` or `process`
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// The rest.
    #[command(flatten)]
    pub common: Common,
}

/// `__node`
#[derive(Debug, Args)]
pub struct Node {
    /// The job file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Which node this is, from 0 on (default: as the variable says that the file names)
    #[arg(long, value_name = "N")]
    pub node: Option<u32>,
}

/// `policy …`
#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Read a policy file and say all that is wrong with it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Show the rules in force, each with its file and line
    Show {
        /// Only the rules that are about this plugin
        plugin: Option<String>,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Say whether a plugin may do something, why, and what would allow it
    Explain {
        /// Its name
        plugin: String,
        /// The call, such as `docker.create-container`
        call: String,
        /// What it would touch: `SCOPE=VALUE`, such as `path=$run/x`
        #[arg(value_name = "SCOPE=VALUE")]
        scope: Vec<String>,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
    /// Print the policy that allows what a run has done, and nothing more
    Suggest {
        /// The run's id, the beginning of it, `last`, or its directory
        #[arg(value_name = "RUN", default_value = "last")]
        run: PathBuf,
    },
    /// Decide the cases that a policy file has, or those of all files in force
    Test {
        /// The file; it is taken for the site's
        file: Option<PathBuf>,
        /// The rest.
        #[command(flatten)]
        common: Common,
    },
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// The rest.
    #[command(flatten)]
    pub common: Common,
}

/// A path where the empty one stands for none: `MODEL_DIR=` is not an error.
fn perhaps_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Pieces of list options: split at commas, trimmed, empty ones dropped, in order.
#[must_use]
pub fn pieces(values: &[String]) -> Vec<String> {
    values
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
        .map(str::to_owned)
        .collect()
}
