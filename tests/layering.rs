//! Who may know whom: the arrows of ARCHITECTURE.md, read off the sources.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

/// The folders and files of `src`, and the parts of the crate that each may name.
const MAY_KNOW: [(&str, &[&str]); 25] = [
    ("domain", &["domain"]),
    ("mapping", &["mapping", "domain"]),
    ("aggregator", &["aggregator", "domain"]),
    ("metrics", &["metrics", "aggregator", "domain"]),
    ("tasks", &["metrics"]),
    ("explain", &["domain"]),
    ("recent", &["domain"]),
    ("store", &["store"]),
    ("pipeline", &["aggregator", "metrics", "mapping", "explain", "recent", "store", "domain", "pipeline"]),
    ("receiver", &["receiver", "mapping", "pipeline", "metrics", "store", "tasks", "domain"]),
    ("web", &["web", "pipeline", "metrics", "tasks", "explain"]),
    ("memory", &[]),
    ("secrets", &[]),
    ("tls", &["secrets", "pipeline", "metrics"]),
    ("auth", &["secrets"]),
    ("listener", &["listener", "metrics", "tasks", "tls"]),
    ("config", &["config", "mapping", "metrics", "domain"]),
    ("load", &["load", "tls"]),
    ("access", &["auth", "config", "pipeline", "secrets", "tls"]),
    ("reload", &["config", "domain", "mapping", "metrics", "pipeline", "secrets", "store", "tasks"]),
    ("assembly", &["aggregator", "config", "domain", "mapping", "memory", "metrics", "pipeline", "recent"]),
    (
        "recovery",
        &[
            "aggregator",
            "assembly",
            "config",
            "domain",
            "mapping",
            "metrics",
            "pipeline",
            "receiver",
            "reload",
            "store",
        ],
    ),
    ("replay", &["replay", "pipeline", "metrics", "mapping", "domain"]),
    (
        "cli",
        &[
            "access", "app", "assembly", "auth", "config", "domain", "explain", "load", "mapping", "metrics",
            "pipeline", "recent", "reload", "replay", "secrets", "tls",
        ],
    ),
    (
        "app",
        &[
            "access", "config", "listener", "metrics", "pipeline", "receiver", "recovery", "reload", "store",
            "tasks", "web",
        ],
    ),
];

/// Crates that only some parts may name.
const CRATES: [(&str, &[&str]); 18] = [
    ("axum", &["receiver", "web", "listener", "auth", "access", "app"]),
    ("rustls", &["tls"]),
    ("tokio_rustls", &["tls"]),
    ("ring", &["secrets", "auth"]),
    ("subtle", &["auth"]),
    ("hyper", &["listener", "web", "load", "cli"]),
    ("tonic", &["receiver"]),
    ("opentelemetry_proto", &["receiver", "replay", "load"]),
    ("opentelemetry", &["mapping"]),
    ("prometheus", &["metrics"]),
    ("dashmap", &["aggregator", "mapping"]),
    ("hashbrown", &["metrics"]),
    ("rustix", &["listener", "store"]),
    ("crc32fast", &["store"]),
    ("mimalloc", &["main"]),
    ("serde_json", &["mapping", "receiver", "web", "config", "replay", "cli"]),
    ("serde_saphyr", &["config"]),
    (
        "tokio",
        &[
            "pipeline", "auth", "receiver", "web", "tls", "listener", "tasks", "app", "reload", "recovery",
            "store", "load", "cli", "main",
        ],
    ),
];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Every source file: the part of the crate it belongs to, its path, and its lines without comments and tests.
fn parts() -> Vec<(String, String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let read = |path: PathBuf| {
        let relative = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        let part = relative.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let lines =
            code.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect();
        (part, relative, lines)
    };
    files.into_iter().map(read).filter(|(_, path, _)| !path.contains("tests")).collect()
}

#[test]
fn every_part_knows_only_the_parts_it_may_know() {
    for (part, path, lines) in parts() {
        let Some((_, allowed)) = MAY_KNOW.iter().find(|(name, _)| *name == part) else { continue };
        for line in &lines {
            for (_, after) in line.match_indices("crate::").map(|(at, _)| line.split_at(at + "crate::".len()))
            {
                let named: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                assert!(allowed.contains(&named.as_str()), "{path} must not know {named}: {line}");
            }
        }
    }
}

#[test]
fn every_foreign_crate_stays_in_its_parts() {
    for (part, path, lines) in parts() {
        for (name, allowed) in CRATES {
            let named = lines.iter().find(|line| {
                line.match_indices(&format!("{name}::")).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                })
            });
            if let Some(line) = named {
                assert!(allowed.contains(&part.as_str()), "{path} must not name the crate {name}: {line}");
            }
        }
    }
}

#[test]
fn the_domain_knows_nothing_but_std_and_short_lists() {
    for (_, path, lines) in parts().into_iter().filter(|(part, _, _)| part == "domain") {
        for line in lines {
            let foreign = [
                "Instant::now",
                "SystemTime",
                "async ",
                ".await;",
                ".await?",
                "tracing",
                "println",
                "serde",
                "thread::",
                "std::thread",
            ];
            let found = foreign.iter().find(|word| line.contains(*word));
            assert!(found.is_none(), "{path} is pure, but says {found:?}: {line}");
            if let Some(used) = line.trim_start().strip_prefix("use ") {
                let from = used.split("::").next().unwrap();
                assert!(["std", "smallvec", "super", "crate", "self"].contains(&from), "{path} uses {from}");
            }
        }
    }
}
