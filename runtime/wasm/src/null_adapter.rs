//! A WASI preview1 without access to anything: a small module inside the component that answers every call. The clock
//! stands still, random bytes are all the same, files and sockets are EBADF. So components of toolchains that always
//! import WASI (Go, C) import `pelton:plugin` alone, and the same input gives the same output.

use std::borrow::Cow;

use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, MemArg,
    MemoryType, Module, TypeSection, ValType,
};

use crate::host::wasi::{CLOCK_NS, RANDOM_BYTE};

/// The core module whose imports it answers.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";
/// "Bad file descriptor" in WASI.
const EBADF: i32 = 8;

/// Functions by name, with their parameters: `i` is i32, `I` is i64. All return an i32, but for `proc_exit` and the
/// function of wit-bindgen's Go runtime.
const FUNCTIONS: &[(&str, &str, Answer)] = &[
    ("adapter_monotonic_clock_set_paused", "i", Answer::Nothing),
    ("proc_exit", "i", Answer::Trap),
    ("clock_time_get", "iIi", Answer::Clock),
    ("random_get", "ii", Answer::Random),
    ("args_sizes_get", "ii", Answer::Zeroes),
    ("environ_sizes_get", "ii", Answer::Zeroes),
    ("args_get", "ii", Answer::Success),
    ("environ_get", "ii", Answer::Success),
    ("sched_yield", "", Answer::Success),
    ("fd_write", "iiii", Answer::Refuse),
    ("fd_read", "iiii", Answer::Refuse),
    ("fd_close", "i", Answer::Refuse),
    ("fd_sync", "i", Answer::Refuse),
    ("fd_datasync", "i", Answer::Refuse),
    ("fd_fdstat_get", "ii", Answer::Refuse),
    ("fd_fdstat_set_flags", "ii", Answer::Refuse),
    ("fd_prestat_get", "ii", Answer::Refuse),
    ("fd_filestat_get", "ii", Answer::Refuse),
    ("fd_renumber", "ii", Answer::Refuse),
    ("fd_tell", "ii", Answer::Refuse),
    ("clock_res_get", "ii", Answer::Refuse),
    ("sock_shutdown", "ii", Answer::Refuse),
    ("fd_prestat_dir_name", "iii", Answer::Refuse),
    ("path_create_directory", "iii", Answer::Refuse),
    ("path_unlink_file", "iii", Answer::Refuse),
    ("path_remove_directory", "iii", Answer::Refuse),
    ("sock_accept", "iii", Answer::Refuse),
    ("fd_seek", "iIii", Answer::Refuse),
    ("fd_pread", "iiiIi", Answer::Refuse),
    ("fd_pwrite", "iiiIi", Answer::Refuse),
    ("fd_readdir", "iiiIi", Answer::Refuse),
    ("fd_filestat_set_size", "iI", Answer::Refuse),
    ("fd_filestat_set_times", "iIIi", Answer::Refuse),
    ("fd_advise", "iIIi", Answer::Refuse),
    ("fd_allocate", "iII", Answer::Refuse),
    ("fd_fdstat_set_rights", "iII", Answer::Refuse),
    ("path_open", "iiiiiIIii", Answer::Refuse),
    ("path_filestat_get", "iiiii", Answer::Refuse),
    ("path_symlink", "iiiii", Answer::Refuse),
    ("sock_send", "iiiii", Answer::Refuse),
    ("path_rename", "iiiiii", Answer::Refuse),
    ("path_readlink", "iiiiii", Answer::Refuse),
    ("sock_recv", "iiiiii", Answer::Refuse),
    ("path_link", "iiiiiii", Answer::Refuse),
    ("path_filestat_set_times", "iiiiIIi", Answer::Refuse),
    ("poll_oneoff", "iiii", Answer::Refuse),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Returns no value.
    Nothing,
    /// Stops the guest.
    Trap,
    /// 0.
    Success,
    /// [`EBADF`].
    Refuse,
    /// Writes [`CLOCK_NS`] to the third parameter.
    Clock,
    /// Fills the buffer.
    Random,
    /// Writes 0 to both parameters: there are none.
    Zeroes,
}

/// The adapter as a core module, for `wit_component::ComponentEncoder::adapter`.
pub(crate) fn module() -> Vec<u8> {
    let (mut types, mut functions, mut exports, mut code) =
        (TypeSection::new(), FunctionSection::new(), ExportSection::new(), CodeSection::new());
    for (index, (name, params, answer)) in (0..).zip(FUNCTIONS) {
        let params = params.chars().map(|p| if p == 'I' { ValType::I64 } else { ValType::I32 });
        let returns = !matches!(answer, Answer::Nothing | Answer::Trap);
        let results: &[ValType] = if returns { &[ValType::I32] } else { &[] };
        types.ty().function(params.collect::<Vec<_>>(), results.iter().copied());
        functions.function(index);
        exports.export(name, ExportKind::Func, index);
        code.function(&body(*answer));
    }
    let mut imports = ImportSection::new();
    let memory =
        MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
    imports.import("env", "memory", EntityType::Memory(memory));
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
    module.finish()
}

fn body(answer: Answer) -> Function {
    let mut body = Function::new(Cow::Borrowed(&[][..]).iter().copied());
    let at = |align| MemArg { offset: 0, align, memory_index: 0 };
    let mut code = body.instructions();
    match answer {
        Answer::Nothing => &mut code,
        Answer::Trap => code.unreachable(),
        Answer::Success => code.i32_const(0),
        Answer::Refuse => code.i32_const(EBADF),
        Answer::Clock => code.local_get(2).i64_const(CLOCK_NS.cast_signed()).i64_store(at(3)).i32_const(0),
        Answer::Random => {
            code.local_get(0).i32_const(RANDOM_BYTE.into()).local_get(1).memory_fill(0).i32_const(0)
        }
        Answer::Zeroes => (code.local_get(0).i32_const(0).i32_store(at(2)))
            .local_get(1)
            .i32_const(0)
            .i32_store(at(2))
            .i32_const(0),
    };
    code.end();
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_adapter_is_a_valid_module_that_calls_nothing() {
        let module = module();
        wasmparser::validate(&module).expect("is valid");
        for payload in wasmparser::Parser::new(0).parse_all(&module) {
            if let wasmparser::Payload::ImportSection(imports) = payload.expect("parses") {
                assert_eq!(imports.count(), 1, "the memory alone");
            }
        }
        assert_eq!(FUNCTIONS.len(), 46, "all of preview1 and one for Go");
    }
}
