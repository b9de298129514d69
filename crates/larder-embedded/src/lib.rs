//! Larder's embedded store: one folder on LMDB, shared by the processes of a machine
