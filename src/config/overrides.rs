//! Settings from flags and environment variables, by one naming rule.
//!
//! The list of settings is read off the defaults, so that a new setting has its flag and its variable by itself.

use serde_json::Value;

use super::{Config, ConfigError};

/// One setting given outside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The setting as a path, such as `listen.http`.
    pub path: String,
    /// Its value as text.
    pub value: String,
    /// Who says so, for messages: a flag or a variable.
    pub origin: String,
}

/// A setting that a flag or a variable can give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its path, such as `listen.http`.
    pub path: String,
    /// Its value as text.
    pub value: String,
}

/// All settings that a flag or a variable can give, with their defaults. The flows are not among them.
pub fn settings() -> Vec<Setting> {
    settings_of(&Config::default())
}

/// The same with the values of `config`, in the same order.
pub fn settings_of(config: &Config) -> Vec<Setting> {
    let mut settings = Vec::new();
    collect(&serde_json::to_value(config).unwrap_or_default(), "", &mut settings);
    settings
}

/// The environment variable of a setting.
fn variable(path: &str) -> String {
    format!("LATENCY_AGGREGATOR_{}", path.replace('.', "_").to_uppercase())
}

impl Override {
    /// The setting that a flag gives.
    pub fn from_flag(path: &str, value: &str) -> Override {
        Override { path: path.to_owned(), value: value.to_owned(), origin: format!("flag --{path}") }
    }

    /// The settings that environment variables give; the ancestor's two names come first, so that ours win.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Vec<Override> {
        let set = |path: &str, variable: String, value: String| Override {
            path: path.to_owned(),
            value,
            origin: format!("environment variable {variable}"),
        };
        let mut overrides = Vec::new();
        if let Some(port) = get("APPLICATION_PORT").filter(|port| !port.is_empty()) {
            // The ancestor listened on every address, and was told the port with a colon or without.
            let port = port.trim_start_matches(':');
            overrides.push(set("listen.http", "APPLICATION_PORT".to_owned(), format!("0.0.0.0:{port}")));
        }
        if let Some(level) = get("LOG_LEVEL").filter(|level| !level.is_empty()) {
            overrides.push(set("log.level", "LOG_LEVEL".to_owned(), level.to_lowercase()));
        }
        for Setting { path, .. } in settings() {
            let variable = variable(&path);
            if let Some(value) = get(&variable) {
                overrides.push(set(&path, variable, value));
            }
        }
        overrides
    }
}

/// The config with the overrides applied, later ones over earlier ones.
pub(super) fn apply(config: Config, overrides: &[Override]) -> Result<Config, ConfigError> {
    let flows = config.flows.clone();
    let mut config = config;
    for setting in overrides {
        let failed = |problem: String| ConfigError::Override {
            origin: setting.origin.clone(),
            path: setting.path.clone(),
            problem,
        };
        let with = |value: Value| {
            let mut tree = serde_json::to_value(&config).map_err(|error| error.to_string())?;
            let place = setting.path.split('.').try_fold(&mut tree, |node, key| node.get_mut(key));
            *place.ok_or("there is no such setting")? = value;
            serde_json::from_value::<Config>(tree).map_err(|error| error.to_string())
        };
        let text = Value::String(setting.value.clone());
        // As YAML, like in the file; and as text, where text is wanted that looks like something else.
        let value = serde_saphyr::from_str(&setting.value).unwrap_or_else(|_| text.clone());
        config = with(value).or_else(|problem| with(text).map_err(|_| problem)).map_err(failed)?;
    }
    Ok(Config { flows, ..config })
}

fn collect(value: &Value, path: &str, settings: &mut Vec<Setting>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(value, &path, settings);
            }
        }
        Value::String(text) => settings.push(Setting { path: path.to_owned(), value: text.clone() }),
        other => settings.push(Setting { path: path.to_owned(), value: other.to_string() }),
    }
}
