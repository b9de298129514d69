//! A cache for services: in one process, shared by a machine, or by all machines, governed while it runs
