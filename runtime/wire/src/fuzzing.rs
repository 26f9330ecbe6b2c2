//! What a fuzzer drives: every API, version and direction of the codec.
