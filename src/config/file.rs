//! Config files: reading, `${env:NAME}`, included files, and errors that name file, line, column and key.

mod stored;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::Spanned;
use thiserror::Error;

use super::overrides::apply;
use super::{Config, Override};
use crate::mapping::condition::ExpressionError;
use crate::mapping::flows::{
    Compiled, FlowConfig, FlowError, History, Numbers, compile_after, compile_again,
};

/// The largest config file.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// The most included files.
const MAX_INCLUDED_FILES: usize = 1000;

/// Why there is no config. Every message says what to change.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read the config file {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file says something wrong at a known place.
    #[error("{file}:{line}:{column}: {problem}")]
    At {
        /// The file.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong, beginning with the key if it is known.
        problem: String,
    },
    /// A file says something wrong, as its parser shows it.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A flag or a variable says something wrong.
    #[error("{origin}: cannot set {path}: {problem}")]
    Override {
        /// The flag or variable.
        origin: String,
        /// The setting.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// A config that has been read, and where its flows stand.
#[derive(Debug)]
pub struct Loaded {
    /// All settings.
    pub config: Config,
    /// The flows of all files, in order.
    pub flows: Vec<FlowConfig>,
    /// Tells configs apart: equal files and overrides give equal fingerprints.
    pub fingerprint: u32,
    /// For each flow: its file, and its line there.
    places: Vec<(Arc<Source>, usize)>,
    main: Arc<Source>,
    included: Vec<Arc<Source>>,
    overrides: Vec<Override>,
    /// Where relative paths begin.
    folder: PathBuf,
}

/// The text of one file.
#[derive(Debug)]
struct Source {
    name: String,
    text: String,
}

impl Source {
    /// With the values of environment variables in the text.
    fn new(name: String, text: &str) -> Result<Self, ConfigError> {
        let text = substitute(text, &name, |name| std::env::var(name).ok())?;
        Ok(Source { name, text })
    }

    /// The error of a setting whose path stands before the colon of `problem`, with its place if it is in the file.
    fn blame(&self, problem: String) -> ConfigError {
        let path = problem.split(':').next().unwrap_or_default();
        let mut place = Some((1, 1));
        for key in path.split('.') {
            place = place.and_then(|(line, _)| find_key(&self.text, line, key));
        }
        let file = self.name.clone();
        match place {
            Some((line, column)) => ConfigError::At { file, line, column, problem },
            None => ConfigError::File { file, problem },
        }
    }
}

/// What an included file may hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Included {
    flows: Vec<Spanned<FlowConfig>>,
}

pub(super) fn load(path: Option<&Path>, overrides: &[Override]) -> Result<Loaded, ConfigError> {
    let main = match path {
        Some(path) => read(path)?,
        None => Source { name: "built-in defaults".to_owned(), text: String::new() },
    };
    let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
    load_source(main, overrides, folder, |pattern, main| {
        let files = matching(folder, pattern).map_err(|problem| main.blame(problem))?;
        files.iter().map(|path| read(path)).collect()
    })
}

pub(super) use stored::load_stored;

pub(super) fn load_text(name: &str, text: &str) -> Result<Loaded, ConfigError> {
    let main = Source::new(name.to_owned(), text)?;
    let none = |pattern: &str, main: &Source| {
        Err(main.blame(format!("include: {pattern:?}: only a file can include others")))
    };
    load_source(main, &[], Path::new(""), none)
}

/// The settings of `main`, whose relative paths begin at `folder`, and the flows of the files that `included` finds for its
/// patterns.
fn load_source(
    main: Source,
    overrides: &[Override],
    folder: &Path,
    included: impl Fn(&str, &Source) -> Result<Vec<Source>, ConfigError>,
) -> Result<Loaded, ConfigError> {
    let config: Config = parse(&main)?;
    let config = apply(config, overrides)?;
    config.check().map_err(|problem| {
        // The last word on a setting is the one to correct.
        let setting =
            overrides.iter().rev().find(|setting| problem.starts_with(&format!("{}:", setting.path)));
        match setting {
            Some(setting) => ConfigError::Override {
                origin: setting.origin.clone(),
                path: setting.path.clone(),
                problem: problem.clone(),
            },
            None => main.blame(problem),
        }
    })?;
    let main = Arc::new(main);
    let mut loaded = Loaded {
        fingerprint: 0,
        flows: Vec::new(),
        places: Vec::new(),
        main: Arc::clone(&main),
        included: Vec::new(),
        overrides: overrides.to_vec(),
        folder: folder.to_owned(),
        config,
    };
    let own = std::mem::take(&mut loaded.config.flows);
    loaded.add(&main, own);
    for pattern in loaded.config.include.clone() {
        for source in included(&pattern, &main)? {
            let source = Arc::new(source);
            let included: Included = parse(&source)?;
            loaded.add(&source, included.flows);
            loaded.included.push(source);
        }
    }
    loaded.fingerprint = loaded.compute_fingerprint();
    Ok(loaded)
}

impl Loaded {
    /// A path of a setting, from where we are.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn add(&mut self, source: &Arc<Source>, flows: Vec<Spanned<FlowConfig>>) {
        for flow in flows {
            let line = usize::try_from(flow.referenced.line()).unwrap_or(0);
            self.places.push((Arc::clone(source), line));
            self.flows.push(flow.value);
        }
    }

    /// What `config_hash` shows: FNV-1a over the settings and the flows. Replicas of one version with equal configs
    /// show equal values.
    fn compute_fingerprint(&self) -> u32 {
        let text = format!("{:?}{:?}", self.config, self.flows);
        text.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// Turns the flows into rules, or says where they are wrong.
    pub fn compile(&self) -> Result<Compiled, ConfigError> {
        self.compile_after(History::default())
    }

    /// The same for a config that had these numbers, after those before it.
    pub fn compile_again(&self, history: History, numbers: &Numbers) -> Result<Compiled, ConfigError> {
        let Config { defaults, ignore, trace_flow, .. } = &self.config;
        let compiled = compile_again(history, numbers, &self.flows, defaults, ignore, *trace_flow);
        compiled.map_err(|error| self.locate(&error))
    }

    /// The same for rules that take the place of others.
    pub fn compile_after(&self, history: History) -> Result<Compiled, ConfigError> {
        let Config { defaults, ignore, trace_flow, .. } = &self.config;
        let compiled = compile_after(history, &self.flows, defaults, ignore, *trace_flow);
        compiled.map_err(|error| self.locate(&error))
    }

    /// The error of a flow whose `metric` gets in the way of one that pushes have created meanwhile.
    pub fn overlap(&self, metric: &str, pushed: &str) -> ConfigError {
        let flow = self.flows.iter().position(|flow| flow.metric.as_deref() == Some(metric));
        let message =
            format!("{metric:?} gets in the way of the metric {pushed:?}, which pushes have created");
        self.locate(&FlowError { flow, key: "metric".to_owned(), expression: None, message })
    }

    fn locate(&self, error: &FlowError) -> ConfigError {
        let (source, line) = match error.flow.and_then(|flow| self.places.get(flow)) {
            Some((source, line)) => (source, *line),
            None => (&self.main, 1),
        };
        let flow = error.flow.and_then(|flow| self.flows.get(flow)).map(|flow| &flow.name);
        let key = flow.map_or_else(|| error.key.clone(), |name| format!("flow {name:?}: {}", error.key));
        let expression = error.expression.as_deref();
        let place = expression.and_then(|(text, expression)| find(&source.text, line, text, expression));
        // The place in the file says more than the one in the expression.
        let message =
            expression.filter(|_| place.is_some()).map_or(&error.message, |(_, error)| &error.message);
        let problem = format!("{key}: {message}");
        let place = place.or_else(|| find_key(&source.text, line, &error.key));
        let (line, column) = place.unwrap_or((line, 1));
        ConfigError::At { file: source.name.clone(), line, column, problem }
    }
}

/// Where an expression's error is in the file: the expression stands there as it is, unless it was escaped.
fn find(text: &str, from_line: usize, expression: &str, error: &ExpressionError) -> Option<(usize, usize)> {
    let skipped: usize = text.split_inclusive('\n').take(from_line.saturating_sub(1)).map(str::len).sum();
    let start = skipped + text.get(skipped..)?.find(expression)?;
    let before = text.get(..start + error.offset.min(expression.len()))?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some((before.matches('\n').count() + 1, before[line_start..].chars().count() + 1))
}

/// Where a key of a flow is in the file: its first mention from the flow's first line on.
fn find_key(text: &str, from_line: usize, key: &str) -> Option<(usize, usize)> {
    let key = format!("{}:", key.split(['.', '[']).next().unwrap_or_default());
    let mut lines = text.lines().enumerate().skip(from_line.saturating_sub(1));
    lines.find_map(|(number, line)| Some((number + 1, line[..line.find(&key)?].chars().count() + 1)))
}

fn read(path: &Path) -> Result<Source, ConfigError> {
    let name = path.display().to_string();
    let failed = |source| ConfigError::Read { path: name.clone(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE_BYTES {
        let problem = format!("the file has {size} bytes, more than the {MAX_FILE_BYTES} allowed");
        return Err(ConfigError::File { file: name, problem });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Source::new(name, &text)
}

fn parse<T: for<'de> Deserialize<'de>>(source: &Source) -> Result<T, ConfigError> {
    // An empty file means the defaults, as an empty mapping does.
    let is_empty =
        source.text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let text = if is_empty { "{}" } else { &source.text };
    serde_saphyr::from_str(text).map_err(|error| {
        let Some(place) = error.location() else {
            return ConfigError::File { file: source.name.clone(), problem: error.to_string() };
        };
        let (line, column) = (place.line(), place.column());
        // The parser names the place, too, and a file that it does not know.
        let text = error.to_string().replace("<input>", &source.name);
        let text =
            text.trim_start_matches("error: ").trim_start_matches(&format!("line {line} column {column}: "));
        ConfigError::At {
            file: source.name.clone(),
            line: usize::try_from(line).unwrap_or(0),
            column: usize::try_from(column).unwrap_or(0),
            problem: text.to_owned(),
        }
    })
}

/// Replaces `${env:NAME}` and `${env:NAME:-default}` as the Collector does; `$${` stands for `${`.
fn substitute(text: &str, file: &str, get: impl Fn(&str) -> Option<String>) -> Result<String, ConfigError> {
    let mut result = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_start().starts_with('#') {
            result.push_str(line);
            continue;
        }
        let mut rest = line;
        while let Some(start) = rest.find("${env:") {
            let fail = |problem: String| ConfigError::At {
                file: file.to_owned(),
                line: number + 1,
                column: line.len() - rest.len() + start + 1,
                problem,
            };
            if rest[..start].ends_with('$') {
                result.push_str(&rest[..start - 1]);
                result.push_str("${env:");
                rest = &rest[start + 6..];
                continue;
            }
            let Some(length) = rest[start..].find('}') else {
                return Err(fail("`${env:` without its `}`".to_owned()));
            };
            let inner = &rest[start + 6..start + length];
            let (name, default) =
                inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
            let value = get(name).filter(|value| !value.is_empty()).or_else(|| default.map(str::to_owned));
            let Some(value) = value else {
                return Err(fail(format!(
                    "the environment variable {name} is not set; set it or write ${{env:{name}:-default}}"
                )));
            };
            if value.contains('\n') {
                return Err(fail(format!("the environment variable {name} holds a line break")));
            }
            result.push_str(&rest[..start]);
            result.push_str(&value);
            rest = &rest[start + length + 1..];
        }
        result.push_str(rest);
    }
    Ok(result)
}

/// The files that an `include` pattern names, by name.
fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let fail = |problem: String| format!("include: {pattern:?}: {problem}");
    let full = folder.join(pattern);
    let paths = glob::glob(&full.to_string_lossy()).map_err(|error| fail(error.to_string()))?;
    let mut files = paths.collect::<Result<Vec<_>, _>>().map_err(|error| fail(error.to_string()))?;
    files.sort();
    if files.is_empty() && !pattern.contains(['*', '?', '[']) {
        return Err(fail("there is no such file".to_owned()));
    }
    if files.len() > MAX_INCLUDED_FILES {
        return Err(fail(format!("{} files are more than the {MAX_INCLUDED_FILES} allowed", files.len())));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_are_put_in_as_the_collector_does() {
        let get = |name: &str| (name == "PORT").then(|| "7".to_owned());
        for (text, expected) in [
            ("a: ${env:PORT}\n", Some("a: 7\n")),
            ("a: 1${env:PORT}2${env:PORT}", Some("a: 1727")),
            ("a: ${env:OTHER:-x}", Some("a: x")),
            ("a: $${env:PORT}", Some("a: ${env:PORT}")),
            ("# ${env:OTHER}\n", Some("# ${env:OTHER}\n")),
            ("a: ${env:OTHER}", None),
            ("a: ${env:PORT", None),
        ] {
            assert_eq!(substitute(text, "f", get).ok().as_deref(), expected, "{text}");
        }
    }
}
