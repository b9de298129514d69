#![no_main]

#[path = "../log_checks.rs"]
mod log_checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| log_checks::check_log(bytes));
