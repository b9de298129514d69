//! The documents that the control plane and its clients exchange.
