//! What Larder's tests share: the contract every store passes, real servers, child processes, fault tools.

pub mod alone;
pub mod certificates;
pub mod contract;
pub mod host;
pub mod machine;
pub mod network;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod slow;
pub mod stalls;
