//! Tools and profilers around a model: from the tools file, the tools asked for and the user's own scripts to what runs
//! before and after, the variables, and the fragment put before the command.
//!
//! Tools are data. Lists are made anew for each model: nothing of one model's may reach the next.

use serde_json::{Map, Value};

use super::error::{ConfigError, ConfigErrorKind};
use super::nearest::{listed, suggestion};
use super::{scalar_text, words};

/// A script that runs in the work directory before or after the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// As written: relative to the tree.
    pub path: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Who wants it: a tool's name, or none for the user.
    pub tool: Option<String>,
}

/// What surrounds one model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// In the order in which they run.
    pub before: Vec<Hook>,
    /// In the order in which they run.
    pub after: Vec<Hook>,
    /// In the order in which they were first named; each name once.
    pub env: Vec<(String, String)>,
    /// A shell fragment put before the command; empty for none.
    pub encapsulate: String,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// `tools`: a list of `{"name", "cmd"?, "env_vars"?}`.
    pub tools: Option<&'a Value>,
    /// `pre_scripts`: a list of `{"path", "args"?}`.
    pub before: Option<&'a Value>,
    /// `post_scripts`.
    pub after: Option<&'a Value>,
    /// `encapsulate_script`.
    pub encapsulate: &'a str,
}

impl<'a> Wishes<'a> {
    /// What a configuration asks for.
    #[must_use]
    pub fn of(config: &'a Value) -> Self {
        Self {
            tools: config.get("tools"),
            before: config.get("pre_scripts"),
            after: config.get("post_scripts"),
            encapsulate: config.get("encapsulate_script").and_then(Value::as_str).unwrap_or_default(),
        }
    }
}

/// Puts tools and scripts together. For each tool in order, its scripts go before all earlier ones, its later scripts
/// after all, its command before all earlier commands, so that the last tool is the outermost.
///
/// # Errors
/// A tool that the file does not have, or a member of the wrong type.
pub fn surround(file: &Value, wishes: Wishes<'_>) -> Result<Surroundings, ConfigError> {
    let mut all = Surroundings { encapsulate: wishes.encapsulate.trim_end().to_owned(), ..Surroundings::default() };
    all.before = hooks(wishes.before, "pre_scripts", None, &mut all.warnings)?;
    all.after = hooks(wishes.after, "post_scripts", None, &mut all.warnings)?;
    let no_tools = Map::new();
    let known = file.get("tools").and_then(Value::as_object).unwrap_or(&no_tools);
    let mut commands: Vec<String> = Vec::new();
    for (index, wish) in list(wishes.tools, "tools")?.iter().enumerate() {
        let name = wish.as_str().or_else(|| wish.get("name").and_then(Value::as_str)).ok_or_else(|| {
            wrong(format!("item {} of `tools` has no name", index + 1), "tools", "write it as `{\"name\": \"…\"}`")
        })?;
        let tool = known.get(name).ok_or_else(|| unknown(name, known))?;
        let mut before =
            hooks(tool.get("pre_scripts"), &format!("tools.{name}.pre_scripts"), Some(name), &mut all.warnings)?;
        before.append(&mut all.before);
        all.before = before;
        all.after.extend(hooks(
            tool.get("post_scripts"),
            &format!("tools.{name}.post_scripts"),
            Some(name),
            &mut all.warnings,
        )?);
        for variables in [tool.get("env_vars"), wish.get("env_vars")] {
            add_variables(&mut all.env, variables, name)?;
        }
        let command = wish.get("cmd").or_else(|| tool.get("cmd")).unwrap_or(&Value::Null);
        let command = match command {
            Value::Null => "",
            Value::String(command) => command.trim_end(),
            _ => {
                return Err(wrong(
                    format!("`cmd` of the tool `{name}` must be a text"),
                    &format!("tools.{name}.cmd"),
                    "",
                ));
            }
        };
        if !command.is_empty() && !commands.iter().any(|there| there == command) {
            commands.push(command.to_owned());
            all.encapsulate =
                if all.encapsulate.is_empty() { command.to_owned() } else { format!("{command} {}", all.encapsulate) };
        }
    }
    Ok(all)
}

fn unknown(name: &str, known: &Map<String, Value>) -> ConfigError {
    let names: Vec<&String> = known.keys().collect();
    let there = if names.is_empty() {
        "the tools file has none".to_owned()
    } else {
        format!("tools are {}", listed(&names, "and"))
    };
    let near = suggestion(name, known.keys().map(String::as_str)).map_or(String::new(), |near| format!("; {near}"));
    ConfigError::new(ConfigErrorKind::UnknownName, format!("there is no tool `{name}`"))
        .on_key("tools")
        .hint(format!("{there}{near}"))
}

fn wrong(message: String, key: &str, hint: &str) -> ConfigError {
    let error = ConfigError::new(ConfigErrorKind::WrongType, message).on_key(key);
    if hint.is_empty() { error } else { error.hint(hint) }
}

fn list<'a>(value: Option<&'a Value>, key: &str) -> Result<&'a [Value], ConfigError> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(wrong(format!("`{key}` must be a list"), key, "")),
    }
}

fn hooks(
    value: Option<&Value>,
    key: &str,
    tool: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Hook>, ConfigError> {
    let mut hooks = Vec::new();
    for (index, item) in list(value, key)?.iter().enumerate() {
        let path =
            item.as_str().or_else(|| item.get("path").and_then(Value::as_str)).filter(|path| !path.trim().is_empty());
        let path = path.ok_or_else(|| {
            wrong(
                format!("item {} of `{key}` has no path", index + 1),
                key,
                "write it as `{\"path\": \"…\", \"args\": \"…\"}`",
            )
        })?;
        let split = words::of_value(item.get("args").unwrap_or(&Value::Null), &format!("args of the script `{path}`"))
            .map_err(|error| error.on_key(key))?;
        warnings.extend(split.warning);
        hooks.push(Hook { path: path.to_owned(), arguments: split.words, tool: tool.map(str::to_owned) });
    }
    Ok(hooks)
}

fn add_variables(env: &mut Vec<(String, String)>, value: Option<&Value>, tool: &str) -> Result<(), ConfigError> {
    let key = format!("tools.{tool}.env_vars");
    let variables = match value {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(variables)) => variables,
        Some(_) => return Err(wrong(format!("`env_vars` of the tool `{tool}` must be an object"), &key, "")),
    };
    for (name, value) in variables.iter().filter(|(name, _)| !super::schema::is_comment(name)) {
        let text = scalar_text(value).ok_or_else(|| {
            wrong(format!("variable `{name}` of the tool `{tool}` must be a text or number"), &key, "")
        })?;
        match env.iter_mut().find(|(there, _)| there == name) {
            Some((_, there)) => *there = text,
            None => env.push((name.clone(), text)),
        }
    }
    Ok(())
}

/// The script that writes down the system a model ran on; by contract the last that runs before the model.
const SYSTEM_REPORT: &str = "scripts/common/pre_scripts/run_rocenv_tool.sh";

/// The hook that writes down the system, unless the configuration says no (`gen_sys_env_details`). Answers a warning for a
/// mode that does not exist.
#[must_use]
pub fn system_report(config: &Value, model: &str, guest_os: &str) -> (Option<Hook>, Option<String>) {
    if config.get("gen_sys_env_details").and_then(Value::as_bool) == Some(false) {
        return (None, None);
    }
    let (mode, warning) = match config.get("rocenv_mode").and_then(Value::as_str).unwrap_or("lite") {
        mode @ ("lite" | "full") => (mode, None),
        other => {
            ("lite", Some(format!("`rocenv_mode` is `{other}`, which is neither `lite` nor `full`; `lite` is used")))
        }
    };
    let arguments = vec![format!("{}_env", model.replace('/', "_")), mode.to_owned(), guest_os.to_owned()];
    (Some(Hook { path: SYSTEM_REPORT.to_owned(), arguments, tool: None }), warning)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file() -> Value {
        json!({"tools": {
            "A": {"pre_scripts": [{"path": "a1.sh"}, {"path": "a2.sh", "args": "x 'y z'"}], "cmd": "A",
                  "env_vars": {"MODE": "a", "LEVEL": 1}, "post_scripts": [{"path": "a.post"}]},
            "B": {"pre_scripts": [{"path": "b.sh"}], "cmd": "B", "env_vars": {"MODE": "b"}, "post_scripts": [{"path": "b.post"}]},
            "echo_A": {"cmd": "echo cmd_A && "}, "echo_B": {"cmd": "echo cmd_B && "},
            "quiet": {"cmd": "", "env_vars": {"Q": true}},
        }})
    }

    fn surrounded(config: &Value) -> Surroundings {
        surround(&file(), Wishes::of(config)).unwrap()
    }

    fn paths(hooks: &[Hook]) -> Vec<&str> {
        hooks.iter().map(|hook| hook.path.as_str()).collect()
    }

    #[test]
    fn the_last_tool_is_outermost_and_its_scripts_come_first() {
        let config = json!({"tools": [{"name": "A"}, {"name": "B"}], "pre_scripts": [{"path": "P"}],
                            "post_scripts": [{"path": "Q"}], "encapsulate_script": "wrap "});
        let all = surrounded(&config);
        assert_eq!(paths(&all.before), ["b.sh", "a1.sh", "a2.sh", "P"]);
        assert_eq!(paths(&all.after), ["Q", "a.post", "b.post"]);
        assert_eq!(all.encapsulate, "B A wrap");
        assert_eq!(all.before[2].arguments, ["x", "y z"]);
        assert_eq!(all.before[0].tool.as_deref(), Some("B"));
        assert_eq!(all.env, [("MODE".to_owned(), "b".to_owned()), ("LEVEL".to_owned(), "1".to_owned())]);
        assert_eq!(surrounded(&config), all, "nothing grows from model to model");
    }

    #[test]
    fn the_user_s_command_replaces_and_the_user_s_variables_merge() {
        let all = surrounded(
            &json!({"tools": [{"name": "A", "cmd": "mine", "env_vars": {"LEVEL": "2", "NEW": 3}}, "quiet"]}),
        );
        assert_eq!(all.encapsulate, "mine");
        let expected = [("MODE", "a"), ("LEVEL", "2"), ("NEW", "3"), ("Q", "True")];
        assert_eq!(all.env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn fragments_keep_their_operators_and_the_same_command_is_put_once() {
        let both =
            json!({"tools": [{"name": "echo_A"}, {"name": "echo_B"}, {"name": "quiet", "cmd": "echo cmd_A &&"}]});
        assert_eq!(surrounded(&both).encapsulate, "echo cmd_B && echo cmd_A &&");
        assert_eq!(surrounded(&json!({})), Surroundings::default());
    }

    #[test]
    fn an_unknown_tool_is_an_error_that_lists_the_known_ones() {
        let error = surround(&file(), Wishes::of(&json!({"tools": [{"name": "echoA"}]}))).unwrap_err();
        assert_eq!(error.to_string(), "there is no tool `echoA`");
        let hint = error.hint.unwrap();
        assert!(hint.contains("`A`, `B`, `echo_A`") && hint.contains("did you mean `echo_A`"), "{hint}");
        assert!(
            surround(&json!({}), Wishes::of(&json!({"tools": ["x"]}))).unwrap_err().hint.unwrap().contains("has none")
        );
    }

    #[test]
    fn what_has_the_wrong_type_is_refused_with_its_key() {
        for (config, key) in [
            (json!({"tools": {}}), "tools"),
            (json!({"tools": [{}]}), "tools"),
            (json!({"tools": [{"name": "A", "cmd": 1}]}), "tools.A.cmd"),
            (json!({"tools": [{"name": "A", "env_vars": []}]}), "tools.A.env_vars"),
            (json!({"pre_scripts": [{"args": "x"}]}), "pre_scripts"),
            (json!({"post_scripts": [{"path": "x", "args": "'"}]}), "post_scripts"),
        ] {
            assert_eq!(surround(&file(), Wishes::of(&config)).unwrap_err().key.as_deref(), Some(key), "{config}");
        }
    }

    #[test]
    fn the_system_is_written_down_unless_told_not_to() {
        let (hook, warning) = system_report(&json!({"rocenv_mode": "full"}), "d/m", "UBUNTU");
        assert_eq!(
            (hook.unwrap().arguments, warning),
            (vec!["d_m_env".to_owned(), "full".to_owned(), "UBUNTU".to_owned()], None)
        );
        assert!(system_report(&json!({"rocenv_mode": "wide"}), "m", "").1.is_some());
        assert_eq!(system_report(&json!({"gen_sys_env_details": false}), "m", ""), (None, None));
    }
}
