//! The same text, with all orderings and fences taken away.

pub(crate) mod sync {
    pub(crate) use loom::sync::RwLock;
    pub(crate) use loom::sync::atomic::Ordering;
    use loom::sync::atomic::Ordering::Relaxed;

    pub(crate) fn fence(_order: Ordering) {}

    macro_rules! relaxed {
        ($name:ident, $number:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            #[allow(dead_code)]
            impl $name {
                pub(crate) fn new(number: $number) -> Self {
                    Self(loom::sync::atomic::$name::new(number))
                }

                pub(crate) fn load(&self, _order: Ordering) -> $number {
                    self.0.load(Relaxed)
                }

                pub(crate) fn store(&self, number: $number, _order: Ordering) {
                    self.0.store(number, Relaxed);
                }

                pub(crate) fn fetch_add(&self, number: $number, _order: Ordering) -> $number {
                    self.0.fetch_add(number, Relaxed)
                }

                pub(crate) fn fetch_or(&self, bits: $number, _order: Ordering) -> $number {
                    self.0.fetch_or(bits, Relaxed)
                }

                pub(crate) fn fetch_update(
                    &self,
                    _set: Ordering,
                    _fetch: Ordering,
                    update: impl FnMut($number) -> Option<$number>,
                ) -> Result<$number, $number> {
                    self.0.fetch_update(Relaxed, Relaxed, update)
                }
            }
        };
    }

    relaxed!(AtomicU32, u32);
    relaxed!(AtomicU64, u64);
    relaxed!(AtomicUsize, usize);
}

#[allow(dead_code)]
#[path = "../../../../crates/larder-embedded/src/control/board.rs"]
pub(crate) mod board;
#[allow(dead_code)]
#[path = "../../../../crates/larder-core/src/outbox/gate.rs"]
pub(crate) mod gate;
#[path = "../../../../crates/larder-core/src/sweeps.rs"]
pub(crate) mod sweeps;
