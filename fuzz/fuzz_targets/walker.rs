//! OTLP protobuf: the walker accepts and reports what prost does, apart from what it documents.

#![no_main]

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|request: &[u8]| oracle::check_wire(request));
