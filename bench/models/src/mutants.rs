//! Guards of the product's text that is included here: what `larder-core/src/mutants.rs` is there.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    JoinersShareWhatIsFilled,
    SweepsHide,
    SweptReadsHide,
}

thread_local! {
    static OFF: Cell<Option<Guard>> = const { Cell::new(None) };
}

pub(crate) fn is_off(guard: Guard) -> bool {
    OFF.with(|off| off.get() == Some(guard))
}

/// Runs something without a guard.
pub(crate) fn without<T>(guard: Guard, run: impl FnOnce() -> T) -> T {
    OFF.set(Some(guard));
    let value = run();
    OFF.set(None);
    value
}
