//! Every API, version and direction of the codec, request headers, and the reader of record batches: the first three bytes choose.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pelton_wire::fuzzing::fuzz_one(data));
