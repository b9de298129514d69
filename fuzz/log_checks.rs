//! What must hold for any line of a log: checked by the fuzz target, and by the tests for each file of the corpus.

use larder_logs::{Line, LogReader, MAX_LINE_BYTES, push_template};

/// A log of any bytes: each line is a request or has a flaw, and what was read of a request is in bounds.
pub(crate) fn check_log(bytes: &[u8]) {
    let mut log = LogReader::new(bytes);
    let mut lines = 0;
    while let Ok(Some(line)) = log.next_line() {
        lines += 1;
        match line {
            Line::Request(request) => {
                assert!(!request.target.is_empty());
                assert!((0..1_000).contains(&request.status));
                let time = larder_logs::format_time(request.at_ms);
                assert_eq!(time.len(), "2000-10-10T20:55:36Z".len());
                check_template(&request.target);
            }
            // What is no UTF-8 is shown in three bytes; what is packed may be longer than its bytes.
            Line::Unreadable { text, .. } => assert!(text.len() <= 3 * MAX_LINE_BYTES),
        }
    }
    assert!(lines <= log.line_number());
}

/// A template has as many segments as its path, and finding it again changes nothing.
fn check_template(path: &str) {
    let (mut template, mut again) = (String::new(), String::new());
    push_template(path, &mut template);
    push_template(&template, &mut again);
    assert_eq!(template, again);
    assert_eq!(template.split('/').count(), path.split('/').count());
}
