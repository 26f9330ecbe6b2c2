//! What all databases of a process share, and how each is set up.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options, WriteBufferManager};

/// Memory and threads of all stores of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateMemory {
    /// `pelton.state.block.cache.bytes`: blocks read from disk. The write buffers are charged to it.
    pub block_cache_bytes: usize,
    /// `pelton.state.write.buffer.bytes`: what was taken over and not flushed, over all databases. RocksDB flushes
    /// early to stay near it.
    pub write_buffer_bytes: usize,
    /// `pelton.state.threads`: threads that flush and compact, for all databases.
    pub threads: i32,
}

impl Default for StateMemory {
    /// 256 MiB and 128 MiB: a larger block cache gave nothing while the page cache held the files. Two threads.
    fn default() -> StateMemory {
        StateMemory { block_cache_bytes: 256 << 20, write_buffer_bytes: 128 << 20, threads: 2 }
    }
}

/// Options of every database of the process, with one cache and one write-buffer budget for all.
pub struct StateOptions {
    cache: Cache,
    write_buffers: WriteBufferManager,
    threads: i32,
}

/// Bytes of one write buffer; a store has at most three before it waits for a flush.
const WRITE_BUFFER_BYTES: usize = 64 << 20;
const WRITE_BUFFERS: i32 = 3;
/// The part of a write buffer that says which keys are in it.
const WRITE_BUFFER_BLOOM: f64 = 0.05;
/// Bits per key: about one look-up of a missing key in a hundred reads a block.
const BLOOM_BITS: f64 = 10.0;
const BLOCK_BYTES: usize = 4 << 10;

impl StateOptions {
    /// Options within this much memory.
    pub fn new(memory: StateMemory) -> StateOptions {
        let cache = Cache::new_lru_cache(memory.block_cache_bytes);
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            memory.write_buffer_bytes,
            false,
            cache.clone(),
        );
        StateOptions { cache, write_buffers, threads: memory.threads }
    }

    /// Bytes of blocks and write buffers in memory now.
    pub fn memory_used(&self) -> usize {
        self.cache.get_usage()
    }

    pub(crate) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_write_buffer_manager(&self.write_buffers);
        // Files of a store stay open: their indexes and filters are needed all the time.
        options.set_max_open_files(-1);
        options.set_max_background_jobs(self.threads);
        options.set_stats_dump_period_sec(0);
        options.set_keep_log_file_num(2);
        options
    }

    pub(crate) fn store(&self) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_bloom_filter(BLOOM_BITS, false);
        blocks.set_block_size(BLOCK_BYTES);
        blocks.set_format_version(6);
        blocks.set_cache_index_and_filter_blocks(false);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_max_write_buffer_number(WRITE_BUFFERS);
        options.set_min_write_buffer_number_to_merge(1);
        // Most keys that are asked for are not in the write buffers: a walk through a skip list would find that out last.
        options.set_memtable_prefix_bloom_ratio(WRITE_BUFFER_BLOOM);
        options.set_memtable_whole_key_filtering(true);
        options.set_level_compaction_dynamic_level_bytes(true);
        options
    }
}

impl Default for StateOptions {
    fn default() -> StateOptions {
        StateOptions::new(StateMemory::default())
    }
}
