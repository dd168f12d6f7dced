//! toyq: a queue of programs in a directory. `submit` hands one in, `serve` runs them one after the other, and the other
//! commands ask and tell. A toy: one machine, one user, no resources; but its jobs have owners, limits and every end that
//! the jobs of real queues have.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

mod runner;
mod spool;

use spool::{Asked, Job, Seen, Spool};

const USAGE: &str = "\
toyq: a queue of programs in a directory ($TOYQ_SPOOL, else ~/.toyq)

  toyq submit --owner OWNER --time SECONDS --directory DIR --output FILE -- PROGRAM [ARGUMENT…]
                                   hand a program in, with the environment that this command has; 0 seconds: no limit
  toyq show ID --owner OWNER       how it is
  toyq wait ID --owner OWNER --state WORD --seen BYTES --seconds N
                                   the same, as soon as it is something else, or has written more
  toyq cancel ID --owner OWNER     end it
  toyq remove --owner OWNER        end and forget all of this owner
  toyq list                        all that are known
  toyq serve [--idle SECONDS]      run what is handed in, until nothing was there for so long
";

fn main() -> ExitCode {
    match answer(std::env::args().skip(1).collect()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("toyq: {message}");
            ExitCode::FAILURE
        }
    }
}

fn answer(words: Vec<String>) -> Result<String, String> {
    let Some((command, rest)) = words.split_first() else { return Err(format!("no command\n\n{USAGE}")) };
    if matches!(command.as_str(), "help" | "--help" | "-h") {
        return Ok(USAGE.to_owned());
    }
    let (mut words, program) = Words::of(rest)?;
    let spool = Spool::open(place()?)?;
    let answer = match command.as_str() {
        "submit" => {
            let job = Job {
                owner: words.option("owner")?,
                time: number(&words.option("time")?)?,
                directory: words.option("directory")?.into(),
                output: words.option("output")?.into(),
                env: std::env::vars().collect(),
                argv: program,
            };
            Ok(line(&spool.submit(&job)?))
        }
        "show" => Ok(line(&spool.show(&words.asked()?)?)),
        "wait" => {
            let asked = words.asked()?;
            let seen = Seen { state: words.option("state")?, bytes: number(&words.option("seen")?)? };
            Ok(line(&spool.wait(&asked, &seen, Duration::from_secs(number(&words.option("seconds")?)?))?))
        }
        "cancel" => Ok(line(&spool.cancel(&words.asked()?)?)),
        "remove" => Ok(format!("{}\n", spool.remove(&words.option("owner")?)?)),
        "list" => Ok(spool.list()?.iter().map(line).collect()),
        "serve" => {
            let idle = words.if_there("idle").map(|text| number(&text).map(Duration::from_secs)).transpose()?;
            runner::serve(&spool, idle).map(|()| String::new())
        }
        other => Err(format!("there is no command `{other}`\n\n{USAGE}")),
    };
    words.done()?;
    answer
}

fn place() -> Result<PathBuf, String> {
    let named = std::env::var_os("TOYQ_SPOOL").filter(|name| !name.is_empty()).map(PathBuf::from);
    let place = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".toyq")));
    place.filter(|place| place.is_absolute()).ok_or_else(|| "`TOYQ_SPOOL` has to name an absolute directory".to_owned())
}

fn line(shown: &spool::Shown) -> String {
    // A record of numbers and texts is always JSON.
    serde_json::to_string(shown).unwrap_or_default() + "\n"
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// The words of a command: what has no name, and options, each with a value.
struct Words {
    plain: Vec<String>,
    options: Vec<(String, String)>,
}

impl Words {
    /// The words, and those behind `--`.
    fn of(words: &[String]) -> Result<(Self, Vec<String>), String> {
        let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
        let (before, behind) = words.split_at(end);
        let mut found = Self { plain: Vec::new(), options: Vec::new() };
        let mut before = before.iter();
        while let Some(word) = before.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let value = before.next().ok_or_else(|| format!("`--{name}` lacks its value"))?;
                    found.options.push((name.to_owned(), value.clone()));
                }
                None => found.plain.push(word.clone()),
            }
        }
        Ok((found, behind.iter().skip(1).cloned().collect()))
    }

    fn if_there(&mut self, name: &str) -> Option<String> {
        let at = self.options.iter().position(|(own, _)| own == name)?;
        Some(self.options.remove(at).1)
    }

    fn option(&mut self, name: &str) -> Result<String, String> {
        self.if_there(name).ok_or_else(|| format!("`--{name}` is missing"))
    }

    fn asked(&mut self) -> Result<Asked, String> {
        let id = self.plain.pop().ok_or("the job's id is missing")?;
        Ok(Asked { id: number(&id)?, owner: self.option("owner")? })
    }

    /// Nothing is left that nobody has read.
    fn done(self) -> Result<(), String> {
        match (self.plain.first(), self.options.first()) {
            (None, None) => Ok(()),
            (Some(word), _) | (None, Some((word, _))) => Err(format!("`{word}` has no meaning here")),
        }
    }
}
