//! RocksDB behind the state-store trait. State arrives with a later capability; today this package
//! proves that the native build works and that the options we rely on exist.

#[cfg(test)]
mod tests {
    use rocksdb::{DB, Options, WriteBatch};

    /// The properties that exactly-once state will stand on: one batch over two column families is
    /// atomic, and `atomic_flush` is accepted by this build.
    #[test]
    fn a_batch_over_two_column_families_is_read_back_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_compression_type(rocksdb::DBCompressionType::Lz4);
        {
            let db = DB::open_cf(&options, dir.path(), ["store", "meta"]).unwrap();
            let (store, meta) = (db.cf_handle("store").unwrap(), db.cf_handle("meta").unwrap());
            let mut batch = WriteBatch::default();
            batch.put_cf(&store, b"carrier", b"UA");
            batch.put_cf(&meta, b"offset", 7_i64.to_be_bytes());
            let mut write = rocksdb::WriteOptions::default();
            write.disable_wal(true);
            db.write_opt(batch, &write).unwrap();
            db.flush_cfs_opt(&[&store, &meta], &rocksdb::FlushOptions::default()).unwrap();
        }
        let db = DB::open_cf(&options, dir.path(), ["store", "meta"]).unwrap();
        let meta = db.cf_handle("meta").unwrap();
        assert_eq!(db.get_cf(&meta, b"offset").unwrap().unwrap(), 7_i64.to_be_bytes());
        let store = db.cf_handle("store").unwrap();
        assert_eq!(db.get_cf(&store, b"carrier").unwrap().unwrap(), b"UA");
    }
}
