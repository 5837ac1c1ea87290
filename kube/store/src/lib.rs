//! A revisioned key-value store with watch and compaction, in memory and on disk.
