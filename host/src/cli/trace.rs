//! `maddock trace`

use std::collections::BTreeMap;
use std::time::Duration;

use glob::Pattern;
use serde_json::{Map, Value, json};

use super::args::{Format, TraceAction};
use super::earlier;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::table;
use crate::capability::events::printable;
use crate::capability::tape::Recording;
use crate::capability::tape::recording::Call;
use crate::capability::trace;
use crate::results::run_directory::RunDirectory;

/// Characters of a line where no bodies are wanted.
const WIDTH: usize = 80;

/// Shows or counts.
///
/// # Errors
/// There is no such run, or it has no trace.
pub fn run(action: &TraceAction) -> Outcome {
    match action {
        TraceAction::Show { run, plugin, call, denied, bodies, format, json } => {
            let (directory, _) = earlier::find_anywhere(run)?;
            let wanted = Wanted::new(plugin.as_deref(), call.as_deref(), *denied)?;
            let json = *json || *format == Format::Json;
            if *bodies { show_bodies(&directory, &wanted, json) } else { show(&directory, &wanted, json) }
        }
        TraceAction::Stats { run, format, json } => {
            let (directory, _) = earlier::find_anywhere(run)?;
            stats(&directory, *json || *format == Format::Json)
        }
    }
}

/// Which calls are shown.
struct Wanted {
    plugin: Option<String>,
    call: Option<Pattern>,
    denied: bool,
}

impl Wanted {
    fn new(plugin: Option<&str>, call: Option<&str>, denied: bool) -> Result<Self, Failure> {
        let call = call.map(Pattern::new).transpose().map_err(|error| {
            Failure::new(Exit::Arguments, format!("`--call` is no pattern: {error}"))
                .hint("such as `files.read` or `files.*`")
        })?;
        Ok(Self { plugin: plugin.map(str::to_owned), call, denied })
    }

    fn has(&self, plugin: &str, call: &str) -> bool {
        self.plugin.as_ref().is_none_or(|wanted| wanted == plugin)
            && self.call.as_ref().is_none_or(|wanted| wanted.matches(call))
    }
}

fn text<'a>(line: &'a Value, name: &str) -> &'a str {
    line.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn lines(directory: &RunDirectory) -> Result<Vec<Value>, Failure> {
    let text = trace::read(directory.path()).map_err(|error| {
        Failure::new(Exit::Failure, format!("cannot read the trace of run {}: {error}", directory.id()))
    })?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// One JSON value as a line that drives no terminal: what JSON does not escape by itself is.
fn safe(value: &Value) -> String {
    let mut safe = String::new();
    for c in value.to_string().chars() {
        if printable(c.encode_utf8(&mut [0; 4])).starts_with(c) {
            safe.push(c);
        } else {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    safe
}

fn cut(line: &str) -> String {
    let line = printable(line);
    match line.char_indices().nth(WIDTH) {
        None => line,
        Some(_) => line.chars().take(WIDTH - 1).chain(['…']).collect(),
    }
}

/// A time without its date, to the millisecond.
fn clock(time: &str) -> &str {
    let time = time.split_once('T').map_or(time, |(_, time)| time);
    time.get(..12).unwrap_or(time)
}

fn took(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn show(directory: &RunDirectory, wanted: &Wanted, json: bool) -> Outcome {
    for line in lines(directory)? {
        if let Some(why) = line.get("dropped") {
            if !json {
                println!("{}", cut(&format!("(older lines were dropped: {why} bytes)")));
            }
            continue;
        }
        let (plugin, call) = (text(&line, "plugin"), text(&line, "call"));
        if !wanted.has(plugin, call) || (wanted.denied && text(&line, "verdict") != "denied") {
            continue;
        }
        if json {
            println!("{}", safe(&line));
            continue;
        }
        let micros = line.get("us").and_then(Value::as_u64).unwrap_or_default();
        let (time, outcome) = (clock(text(&line, "time")), text(&line, "outcome"));
        println!("{}", cut(&format!("{time} {plugin:<15} {call:<26} {outcome:<9} {:>8}", took(micros))));
        let scope = line.get("scope").and_then(Value::as_object).cloned().unwrap_or_default();
        if !scope.is_empty() {
            println!("{}", cut(&format!("             {}", scope_words(&scope))));
        }
        let rule = text(&line, "rule");
        if text(&line, "verdict") == "denied" && !rule.is_empty() {
            println!("{}", cut(&format!("             by {rule}")));
        }
        let error = text(&line, "error");
        if !error.is_empty() {
            println!("{}", cut(&format!("             {error}")));
        }
    }
    Ok(Exit::Success)
}

fn scope_words(scope: &Map<String, Value>) -> String {
    let value = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    scope.iter().map(|(name, values)| format!("{name}={}", value(values))).collect::<Vec<_>>().join(" ")
}

fn show_bodies(directory: &RunDirectory, wanted: &Wanted, json: bool) -> Outcome {
    let recording = Recording::read(directory.path()).map_err(|error| Failure::new(Exit::Failure, error))?;
    for call in &recording.calls {
        let about_call = wanted.plugin.as_ref().is_none_or(|plugin| *plugin == call.plugin);
        let host_calls: Vec<_> =
            call.host_calls.iter().filter(|host| wanted.has(&call.plugin, &host.function)).collect();
        if !about_call || (wanted.call.is_some() && host_calls.is_empty()) {
            continue;
        }
        if json {
            let begin = json!({"call": call.id, "time": call.time, "plugin": call.plugin, "digest": call.digest,
                "function": call.function, "job": call.job, "arguments": call.arguments});
            println!("{}", safe(&begin));
        } else {
            begin(call);
        }
        for host in host_calls {
            if json {
                let line = json!({"call": call.id, "n": host.number, "host": host.function, "ask": host.ask,
                    "answer": host.answer, "us": host.micros});
                println!("{}", safe(&line));
            } else {
                println!("  {} {} {}", host.number.saturating_add(1), host.function, took(host.micros));
                println!("    ask    {}", safe(&host.ask));
                match &host.answer {
                    Some(answer) => println!("    answer {}", safe(answer)),
                    None => println!("    no answer before the call ended"),
                }
            }
        }
        match (&call.end, json) {
            (Some(end), true) => println!("{}", safe(&json!({"call": call.id, "end": end.body}))),
            (Some(end), false) => println!("  end      {}", safe(&end.body)),
            (None, true) => {}
            (None, false) => println!("  its end is not in the recording"),
        }
    }
    if let Some(why) = &recording.stopped {
        eprintln!("the recording stopped before the run did: {}", printable(why));
    }
    if recording.torn {
        eprintln!("the last line of the recording is cut off: its writer was killed");
    }
    Ok(Exit::Success)
}

fn begin(call: &Call) {
    let job = call.job.as_deref().map(|job| format!(" job {job}")).unwrap_or_default();
    println!("{}", printable(&format!("{} {} {}{job}", clock(&call.time), call.plugin, call.function)));
    for argument in &call.arguments {
        println!("  argument {}", safe(argument));
    }
}

#[derive(Default)]
struct Count {
    calls: u64,
    denied: u64,
    errors: u64,
    micros: u64,
    longest: u64,
}

fn stats(directory: &RunDirectory, as_json: bool) -> Outcome {
    let mut counts: BTreeMap<(String, String), Count> = BTreeMap::new();
    for line in lines(directory)?.iter().filter(|line| line.get("call").is_some()) {
        let key = (text(line, "plugin").to_owned(), text(line, "call").to_owned());
        let count = counts.entry(key).or_default();
        let micros = line.get("us").and_then(Value::as_u64).unwrap_or_default();
        count.calls += 1;
        count.micros = count.micros.saturating_add(micros);
        count.longest = count.longest.max(micros);
        count.denied += u64::from(text(line, "verdict") == "denied");
        count.errors += u64::from(text(line, "outcome") == "error");
    }
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(count.micros));
    if as_json {
        let list: Vec<Value> = sorted
            .iter()
            .map(|((plugin, call), count)| {
                json!({"plugin": plugin, "call": call, "calls": count.calls, "denied": count.denied,
                    "errors": count.errors, "us": count.micros, "longest_us": count.longest})
            })
            .collect();
        println!("{:#}", json!({"run": directory.id().as_str(), "calls": list}));
        return Ok(Exit::Success);
    }
    let rows: Vec<Vec<String>> = sorted
        .iter()
        .map(|((plugin, call), count)| {
            let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
            vec![
                printable(plugin),
                printable(call),
                count.calls.to_string(),
                took(count.micros),
                took(count.longest),
                number(count.errors),
                number(count.denied),
            ]
        })
        .collect();
    table::print("", &["Plugin", "Call", "Calls", "Time", "Longest", "Errors", "Denied"], &rows);
    Ok(Exit::Success)
}
