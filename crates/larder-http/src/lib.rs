//! Larder for axum: what a route may cache, under which key, measured; and an accept loop with limits
