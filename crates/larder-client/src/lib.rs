//! Larder's client of the control plane: policies in, signals out, the last known good on disk
