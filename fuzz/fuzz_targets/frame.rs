#![no_main]

#[path = "../frame_checks.rs"]
mod frame_checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frame_checks::check_frame(bytes));
