//! How many files and sockets the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as Go programs do, and returns it: the soft one is low for the sake of programs
/// that use `select(2)`.
pub fn raise_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    limit.current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// What the program itself may have open: files of the config, pipes, the runtime's own.
const RESERVED: usize = 56;

/// How many connections each of `listeners` addresses may have, of `wanted` ones, with that many descriptors.
pub fn connections_for(wanted: usize, listeners: usize, descriptors: usize) -> usize {
    wanted.min((descriptors.saturating_sub(RESERVED + listeners) / listeners.max(1)).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_its_share_of_the_descriptors() {
        for (wanted, listeners, descriptors, expected) in [
            (4096, 3, 1_048_576, 4096),
            (4096, 3, 256, 65),
            (4096, 4, 256, 49),
            (10, 3, 256, 10),
            (4096, 3, 32, 1),
        ] {
            assert_eq!(connections_for(wanted, listeners, descriptors), expected, "{descriptors}");
        }
        assert!(raise_limit() > 0);
    }
}
