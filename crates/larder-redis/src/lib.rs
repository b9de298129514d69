//! Larder's store on Redis and Valkey
