//! Larder's decisions: pure functions of measured traffic
