//! Larder's control plane: policies, signals, and what is decided, over HTTP
