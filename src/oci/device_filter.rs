//! The device rules of a control group of version 2.
//!
//! Version 1 has a controller for them, which libcontainer serves. In version 2 the kernel asks a
//! BPF program that is attached to the group (`Documentation/admin-guide/cgroup-v2.rst`, "Device
//! controller"). The program is a few comparisons, put together here; it goes with the group.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of the groups above are asked as well.
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_DEVCG_DEV_CHAR: i32 = 2;
const BPF_DEVCG_ACC_MKNOD: i32 = 1;

/// A character device: major and minor number, `None` for any.
pub(crate) type CharDevice = (i32, Option<i32>);

/// Lets the processes of a group use these devices alone. They may make any node: without the
/// right to open it, and without CAP_MKNOD they may not even do that.
///
/// # Errors
/// What the kernel said: EPERM without CAP_BPF or CAP_SYS_ADMIN, EINVAL without CONFIG_CGROUP_BPF.
pub(crate) fn attach(group: &Path, allowed: &[CharDevice]) -> io::Result<()> {
    let group = File::open(group)?;
    let filter = load(&program(allowed))?;
    let attributes = Attach {
        target_fd: group.as_raw_fd(),
        attach_bpf_fd: filter.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(drop)
}

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The fields of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target_fd: i32,
    attach_bpf_fd: i32,
    attach_type: u32,
    attach_flags: u32,
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"MIT";
    let attributes = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(io::Error::other)?,
        insns: program.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the structure is passed by a valid pointer with its own size; what it points to, the
    // program and the licence, outlives the call, which copies both.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// The destination in the lower half, the source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `BPF_LDX | BPF_MEM | BPF_W`: a field of the context, which register 1 points to.
fn field(register: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: register | 1 << 4, offset, immediate: 0 }
}

/// `BPF_ALU | BPF_K`: `and` and shift to the right.
fn alu(operation: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code: 0x04 | operation, registers: register, offset: 0, immediate }
}

/// `BPF_JMP | BPF_JNE | BPF_K`: past so many instructions.
fn unless_equal(register: u8, immediate: i32, skip: i16) -> Instruction {
    Instruction { code: 0x55, registers: register, offset: skip, immediate }
}

/// The answer: 1 is yes.
fn answer(yes: bool) -> [Instruction; 2] {
    let set = Instruction { code: 0xb7, registers: 0, offset: 0, immediate: yes.into() };
    [set, Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 }]
}

/// `struct bpf_cgroup_dev_ctx { access_type, major, minor }`, where the lower half of the first is
/// the type of the device and the upper one what is to be done with it.
fn program(allowed: &[CharDevice]) -> Vec<Instruction> {
    const AND: u8 = 0x50;
    const SHIFT_RIGHT: u8 = 0x70;
    const TYPE: u8 = 2;
    const ACCESS: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    let mut program = vec![
        field(TYPE, 0),
        field(ACCESS, 0),
        field(MAJOR, 4),
        field(MINOR, 8),
        alu(AND, TYPE, 0xffff),
        alu(SHIFT_RIGHT, ACCESS, 16),
        unless_equal(ACCESS, BPF_DEVCG_ACC_MKNOD, 2),
    ];
    program.extend(answer(true));
    program.push(unless_equal(TYPE, BPF_DEVCG_DEV_CHAR, 0));
    let only_char = program.len() - 1;
    for (major, minor) in allowed {
        let rest = if minor.is_some() { 3 } else { 2 };
        program.push(unless_equal(MAJOR, *major, rest));
        program.extend(minor.map(|minor| unless_equal(MINOR, minor, 2)));
        program.extend(answer(true));
    }
    // Five instructions a device at most, a handful of devices.
    program[only_char].offset = (program.len() - only_char - 1) as i16;
    program.extend(answer(false));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, for the few instructions there are.
    fn run(program: &[Instruction], context: [u32; 3]) -> u32 {
        let mut registers = [0_u32; 6];
        let mut at = 0;
        loop {
            let Instruction { code, registers: which, offset, immediate } = program[at];
            let register = usize::from(which & 0xf);
            let immediate = immediate.cast_unsigned();
            at += 1;
            match code {
                0x61 => registers[register] = context[usize::try_from(offset / 4).unwrap()],
                0x54 => registers[register] &= immediate,
                0x74 => registers[register] >>= immediate,
                0x55 if registers[register] != immediate => {
                    at += usize::try_from(offset).unwrap();
                }
                0x55 => {}
                0xb7 => registers[register] = immediate,
                0x95 => return registers[0],
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn only_what_is_allowed_passes() {
        const CHAR: u32 = 2;
        const BLOCK: u32 = 1;
        const MKNOD: u32 = 1 << 16;
        const READ: u32 = 2 << 16;
        const WRITE: u32 = 4 << 16;
        let program = program(&[(1, Some(3)), (136, None), (5, Some(2))]);
        for (context, want) in [
            ([READ | CHAR, 1, 3], 1),
            ([READ | WRITE | CHAR, 1, 3], 1),
            ([READ | CHAR, 1, 11], 0),
            ([READ | CHAR, 2, 3], 0),
            ([WRITE | CHAR, 136, 77], 1),
            ([WRITE | CHAR, 5, 2], 1),
            ([WRITE | CHAR, 5, 1], 0),
            ([READ | BLOCK, 1, 3], 0),
            ([READ | BLOCK, 136, 0], 0),
            ([MKNOD | BLOCK, 8, 0], 1),
            ([MKNOD | READ | BLOCK, 8, 0], 0),
        ] {
            assert_eq!(run(&program, context), want, "{context:x?}");
        }
        assert_eq!(run(&super::program(&[]), [READ | CHAR, 1, 3]), 0);
    }
}
