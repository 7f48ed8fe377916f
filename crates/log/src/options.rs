//! What can be set about a log, and the limits that cannot.

/// Where frames begin in a segment.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;

/// Settings of a log. Sizes in bytes, times in milliseconds.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A segment is closed at the first commit group that ends beyond this. Smaller ones make start faster and files
    /// more numerous. Default 128 MiB, because that is what a start may have to check again.
    pub segment_bytes: u64,
    /// Disk space is reserved in steps of this, so that a full disk is noticed before anything is accepted. Default 16 MiB.
    pub reserve_step_bytes: u64,
    /// Free space that the log leaves for its own index files and checkpoints. Default 64 MiB.
    pub free_bytes_min: u64,
    /// Bytes that may wait for the next commit group; beyond, appends are asked to wait. Default 32 MiB.
    pub pending_bytes_max: usize,
    /// Index entries of closed segments kept in memory. Default 16 MiB.
    pub index_cache_bytes: usize,
    /// Idempotent producers remembered over all partitions; beyond, new ones are refused. Default 200,000 (about 200 bytes each).
    pub producers_max: usize,
    /// A producer that has not written to a partition for this long is forgotten there. Default one day, as in Kafka.
    pub producer_id_expiration_ms: i64,
    /// A fault to plant, for tests that must see it found.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::mutants::Mutant>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            reserve_step_bytes: 16 << 20,
            free_bytes_min: 64 << 20,
            pending_bytes_max: 32 << 20,
            index_cache_bytes: 16 << 20,
            producers_max: 200_000,
            producer_id_expiration_ms: 24 * 60 * 60 * 1000,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}
