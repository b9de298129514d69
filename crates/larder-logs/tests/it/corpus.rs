//! The fuzz target's corpus.

use std::path::Path;

use crate::log_checks::check_log;

#[test]
fn every_log_of_the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/log_line");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        check_log(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 20, "{files} files");
}
