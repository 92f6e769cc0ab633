//! Secrets in files: certificates, keys and tokens. Read at the start, and again to see whether their content has
//! changed, which works for the symbolic links that Kubernetes swaps under a mounted Secret, too.
//!
//! Knows neither TLS nor tokens. Invariant: what was good stays in force until something good takes its place, and no
//! error tells what is in a file.

use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use thiserror::Error;

/// The largest file: certificate bundles of all public authorities have a quarter of it.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A file that a setting names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The setting.
    pub setting: &'static str,
    /// Where the file is.
    pub path: PathBuf,
}

/// Why a file is of no use. Messages name the setting and say what to do.
#[derive(Debug, Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("{setting}: cannot read {path}: {reason}; {remedy}")]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: String,
        /// Named in the message itself, so that the remedy stands last.
        reason: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// It holds something else than it should.
    #[error("{setting}: {path}: {problem}")]
    Unusable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

/// What a file holds. Its Debug does not show it.
pub struct Content {
    /// The file.
    pub file: SecretFile,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("file", &self.file).field("bytes", &"***").finish()
    }
}

impl Content {
    /// The error of a file that holds something else than it should.
    pub fn unusable(&self, problem: impl Into<String>) -> SecretError {
        let SecretFile { setting, path } = &self.file;
        SecretError::Unusable { setting, path: path.display().to_string(), problem: problem.into() }
    }
}

/// What became of a look at files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// They hold what is in force.
    Same,
    /// They hold again what is in force, after something else had been refused.
    SameAgain,
    /// They held something new, which is in force now.
    Taken,
    /// They hold something that is of no use, and this is why. What was in force stays so.
    Refused(String),
    /// The same as at the look before.
    StillRefused,
}

/// Tells contents apart.
type Fingerprint = [u8; SHA256_OUTPUT_LEN];

/// Something that is made of files, and made anew when their content changes.
pub struct Followed<T> {
    /// What it is, for messages and metrics.
    name: &'static str,
    files: Vec<SecretFile>,
    make: fn(&[Content]) -> Result<T, SecretError>,
    in_force: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    in_force: Fingerprint,
    /// What was said about the last content that was refused.
    refused: Option<String>,
}

/// Something whose files can be looked at again.
pub trait Follow: std::fmt::Debug + Send + Sync {
    /// What it is, for messages and metrics.
    fn name(&self) -> &'static str;
    /// Reads the files, and takes what they hold if that is new and of use.
    fn look(&self) -> Look;
}

impl<T> std::fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Followed")
            .field("name", &self.name)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<T> Followed<T> {
    /// Reads the files for the first time; whoever starts without a secret that was asked for would start unprotected.
    pub fn open(
        name: &'static str,
        files: Vec<SecretFile>,
        make: fn(&[Content]) -> Result<T, SecretError>,
    ) -> Result<Self, SecretError> {
        let contents = read_all(&files)?;
        let in_force = RwLock::new(Arc::new(make(&contents)?));
        let seen = Mutex::new(Seen { in_force: fingerprint(&contents), refused: None });
        Ok(Followed { name, files, make, in_force, seen })
    }

    /// What is in force now.
    pub fn in_force(&self) -> Arc<T> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the files hold if it is not in force.
    fn read_new(&self, in_force: &Fingerprint) -> Result<Option<(Fingerprint, T)>, SecretError> {
        let contents = read_all(&self.files)?;
        let fingerprint = fingerprint(&contents);
        if fingerprint == *in_force {
            return Ok(None);
        }
        (self.make)(&contents).map(|made| Some((fingerprint, made)))
    }
}

impl<T: Send + Sync> Follow for Followed<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn look(&self) -> Look {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read_new(&seen.in_force) {
            Ok(None) if seen.refused.take().is_some() => Look::SameAgain,
            Ok(None) => Look::Same,
            Ok(Some((fingerprint, made))) => {
                *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
                *seen = Seen { in_force: fingerprint, refused: None };
                Look::Taken
            }
            Err(error) => {
                let message = error.to_string();
                if seen.refused.as_ref() == Some(&message) {
                    return Look::StillRefused;
                }
                seen.refused = Some(message.clone());
                Look::Refused(message)
            }
        }
    }
}

/// Reads files that settings name.
pub fn read_all(files: &[SecretFile]) -> Result<Vec<Content>, SecretError> {
    files.iter().map(read).collect()
}

fn read(file: &SecretFile) -> Result<Content, SecretError> {
    let unreadable = |reason: std::io::Error| {
        let remedy = match reason.kind() {
            ErrorKind::NotFound => "name a file that is there (relative paths begin at the config file)",
            ErrorKind::PermissionDenied => "let the user that this program runs as read it",
            ErrorKind::IsADirectory => "name a file",
            _ => "name a file that can be read",
        };
        let path = file.path.display().to_string();
        SecretError::Unreadable { setting: file.setting, path, reason, remedy }
    };
    let mut content = Content { file: file.clone(), bytes: Vec::new() };
    let opened = std::fs::File::open(&file.path).map_err(unreadable)?;
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut content.bytes).map_err(unreadable)?;
    if content.bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(content.unusable(format!("the file has more than the {MAX_FILE_BYTES} bytes allowed")));
    }
    Ok(content)
}

fn fingerprint(contents: &[Content]) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    for content in contents {
        context.update(&(content.bytes.len() as u64).to_be_bytes());
        context.update(&content.bytes);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has as many bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A secret that is of use when it is text.
    fn text(contents: &[Content]) -> Result<String, SecretError> {
        String::from_utf8(contents[0].bytes.clone()).map_err(|_| contents[0].unusable("no text"))
    }

    #[test]
    fn what_was_good_stays_until_something_good_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "one").unwrap();
        let files = vec![SecretFile { setting: "some.file", path: path.clone() }];
        let followed = Followed::open("text", files, text).unwrap();
        let refused = Look::Refused(format!("some.file: {}: no text", path.display()));
        let steps: [(&[u8], &str, Look); 7] = [
            (b"one", "one", Look::Same),
            (b"two", "two", Look::Taken),
            (b"\xff", "two", refused),
            (b"\xff", "two", Look::StillRefused),
            (b"two", "two", Look::SameAgain),
            (b"two", "two", Look::Same),
            (b"one", "one", Look::Taken),
        ];
        for (number, (bytes, in_force, expected)) in steps.into_iter().enumerate() {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(followed.look(), expected, "step {number}");
            assert_eq!(*followed.in_force(), in_force, "step {number}");
        }
        std::fs::remove_file(&path).unwrap();
        let look = followed.look();
        assert!(matches!(&look, Look::Refused(why) if why.contains("name a file that is there")), "{look:?}");
        assert_eq!(*followed.in_force(), "one");
    }

    #[test]
    fn a_symbolic_link_that_is_swapped_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, content) in [("v1", "one"), ("v2", "two")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("secret"), content).unwrap();
        }
        std::os::unix::fs::symlink("v1", at("data")).unwrap();
        let files = vec![SecretFile { setting: "some.file", path: at("data").join("secret") }];
        let followed = Followed::open("text", files, text).unwrap();
        std::os::unix::fs::symlink("v2", at("next")).unwrap();
        std::fs::rename(at("next"), at("data")).unwrap();
        assert_eq!(followed.look(), Look::Taken);
        assert_eq!(*followed.in_force(), "two");
    }

    #[test]
    fn what_is_in_a_file_is_not_shown() {
        let file = SecretFile { setting: "some.file", path: "f".into() };
        let content = Content { file, bytes: b"hush-hush".to_vec() };
        assert!(!format!("{content:?}").contains("104"), "{content:?}");
    }
}
