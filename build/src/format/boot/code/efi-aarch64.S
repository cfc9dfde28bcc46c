// The EFI program of a unified kernel image, for AArch64. It does what efi-x86_64.S does, and cleans the caches over the
// kernel, as whoever copies code must.

        .text

        .set    SYSTEM_TABLE_CON_OUT, 0x40
        .set    SYSTEM_TABLE_BOOT_SERVICES, 0x60
        .set    CON_OUT_OUTPUT_STRING, 0x08
        .set    ALLOCATE_PAGES, 0x28
        .set    FREE_PAGES, 0x30
        .set    ALLOCATE_POOL, 0x40
        .set    HANDLE_PROTOCOL, 0x98
        .set    LOCATE_PROTOCOL, 0x140
        .set    INSTALL_PROTOCOLS, 0x148
        .set    UNINSTALL_PROTOCOLS, 0x150
        .set    IMAGE_LOAD_OPTIONS_SIZE, 0x30
        .set    IMAGE_LOAD_OPTIONS, 0x38
        .set    IMAGE_BASE, 0x40
        .set    IMAGE_SIZE, 0x48
        .set    CLEAR_MEMORY_ATTRIBUTES, 0x10
        .set    MEMORY_RP_XP_RO, 0x26000
        .set    LOADER_CODE, 1
        .set    LOADER_DATA, 2
        .set    INVALID_PARAMETER, 2
        .set    UNSUPPORTED, 3
        .set    BUFFER_TOO_SMALL, 5
        .set    COPIES, 8               // rows of the table

        // The frame.
        .set    VALUE, 0x60             // what a call gives back
        .set    PAGES, 0x68             // the kernel's memory, as allocated
        .set    HANDLE, 0x70            // of the initrd
        .set    LOAD_FILE, 0x78         // EFI_LOAD_FILE2: one function,
        .set    INITRD, 0x80            // and behind it what is ours
        .set    INITRD_BYTES, 0x88
        .set    TEXT, 0x90              // room for 20 digits and characters
        .set    FRAME, 0xc0

start:
        stp     x29, x30, [sp, -FRAME]!
        mov     x29, sp
        stp     x19, x20, [sp, 0x10]
        stp     x21, x22, [sp, 0x20]
        stp     x23, x24, [sp, 0x30]
        stp     x25, x26, [sp, 0x40]
        stp     x27, x28, [sp, 0x50]
        adr     x19, start              // what the table's offsets count from
        mov     x20, x0                 // our handle
        mov     x21, x1                 // the system table
        ldr     x22, [x1, SYSTEM_TABLE_BOOT_SERVICES]
        adr     x23, table

        adr     x1, guid_loaded_image
        add     x2, sp, VALUE
        ldr     x9, [x22, HANDLE_PROTOCOL]
        blr     x9
        adr     x24, text_image
        cbnz    x0, failed
        ldr     x25, [sp, VALUE]        // the loaded image

        // Memory for the kernel, zeroed, then its pieces.
        mov     x0, 0
        mov     x1, LOADER_CODE
        ldr     w2, [x23, table_pages - table]
        add     x3, sp, PAGES
        ldr     x9, [x22, ALLOCATE_PAGES]
        blr     x9
        adr     x24, text_memory
        cbnz    x0, failed
        ldr     w0, [x23, table_alignment - table]
        ldr     x26, [sp, PAGES]
        sub     x0, x0, 1
        add     x26, x26, x0
        bic     x26, x26, x0            // the kernel
        ldr     w27, [x23, table_image_bytes - table]
        mov     x0, x26
        add     x1, x26, x27
1:      stp     xzr, xzr, [x0], 16
        cmp     x0, x1
        b.lo    1b
        add     x3, x23, table_copies - table
        mov     w4, COPIES
2:      ldp     w0, w1, [x3], 8
        ldr     w2, [x3], 4
        add     x0, x0, x26
        add     x1, x1, x19
        bl      copy
        subs    w4, w4, 1
        b.ne    2b

        // Data caches to the point of unification, then the instruction caches.
        mrs     x3, ctr_el0
        mov     x4, 4
        ubfx    x5, x3, 16, 4
        lsl     x5, x4, x5              // bytes of a data line
        and     x4, x3, 15
        mov     x6, 4
        lsl     x4, x6, x4              // bytes of an instruction line
        add     x1, x26, x27
        mov     x0, x26
3:      dc      cvau, x0
        add     x0, x0, x5
        cmp     x0, x1
        b.lo    3b
        dsb     ish
        mov     x0, x26
4:      ic      ivau, x0
        add     x0, x0, x4
        cmp     x0, x1
        b.lo    4b
        dsb     ish
        isb

        // Firmware that maps such memory without execution has a protocol to allow it.
        adr     x0, guid_memory_attribute
        mov     x1, 0
        add     x2, sp, VALUE
        ldr     x9, [x22, LOCATE_PROTOCOL]
        blr     x9
        cbnz    x0, 5f
        ldr     x0, [sp, VALUE]
        mov     x1, x26
        mov     x2, x27
        mov     x3, MEMORY_RP_XP_RO & 0xffff
        movk    x3, MEMORY_RP_XP_RO >> 16, lsl 16
        ldr     x9, [x0, CLEAR_MEMORY_ATTRIBUTES]
        blr     x9
5:
        // The command line, as UTF-16.
        ldr     w28, [x23, table_cmdline_bytes - table]
        mov     x0, LOADER_DATA
        add     x1, x28, x28
        add     x1, x1, 2
        add     x2, sp, VALUE
        ldr     x9, [x22, ALLOCATE_POOL]
        blr     x9
        adr     x24, text_memory
        cbnz    x0, release
        ldr     x0, [sp, VALUE]
        str     x0, [x25, IMAGE_LOAD_OPTIONS]
        add     w1, w28, w28
        add     w1, w1, 2
        str     w1, [x25, IMAGE_LOAD_OPTIONS_SIZE]
        ldr     w1, [x23, table_cmdline - table]
        add     x1, x1, x19
        cbz     w28, 7f
6:      ldrb    w2, [x1], 1
        strh    w2, [x0], 2
        subs    w28, w28, 1
        b.ne    6b
7:      strh    wzr, [x0]

        // The initrd, if there is one.
        str     xzr, [sp, HANDLE]
        ldr     w0, [x23, table_initrd_bytes - table]
        str     x0, [sp, INITRD_BYTES]
        cbz     w0, 8f
        ldr     w0, [x23, table_initrd - table]
        add     x0, x0, x19
        str     x0, [sp, INITRD]
        adr     x0, load_file
        str     x0, [sp, LOAD_FILE]
        add     x0, sp, HANDLE
        ldr     x9, [x22, INSTALL_PROTOCOLS]
        bl      initrd_protocols
        adr     x24, text_initrd
        cbnz    x0, release
8:
        // The kernel finds itself and its options by our handle.
        ldr     x24, [x25, IMAGE_BASE]
        ldr     x28, [x25, IMAGE_SIZE]
        str     x26, [x25, IMAGE_BASE]
        str     x27, [x25, IMAGE_SIZE]
        ldr     w9, [x23, table_entry - table]
        add     x9, x9, x26
        mov     x0, x20
        mov     x1, x21
        blr     x9

        // Only a kernel that cannot run comes back.
        str     x24, [x25, IMAGE_BASE]
        str     x28, [x25, IMAGE_SIZE]
        str     xzr, [x25, IMAGE_LOAD_OPTIONS]
        str     wzr, [x25, IMAGE_LOAD_OPTIONS_SIZE]
        mov     x28, x0
        ldr     x0, [sp, HANDLE]
        cbz     x0, 9f
        ldr     x9, [x22, UNINSTALL_PROTOCOLS]
        bl      initrd_protocols
9:      mov     x0, x28
        adr     x24, text_kernel

release:                                // x0: status, x24: what failed
        mov     x28, x0
        ldr     x0, [sp, PAGES]
        ldr     w1, [x23, table_pages - table]
        ldr     x9, [x22, FREE_PAGES]
        blr     x9
        mov     x0, x28

failed:                                 // x0: status, x24: what failed
        mov     x28, x0
        adr     x1, text_start
        bl      print
        mov     x1, x24
        bl      print
        // The status in hexadecimal: the error bit, and what it is.
        add     x0, sp, TEXT
        mov     x1, x28
        mov     w2, 16
1:      ror     x1, x1, 60
        and     w3, w1, 15
        add     w4, w3, '0'
        add     w5, w3, 'a' - 10
        cmp     w3, 10
        csel    w3, w4, w5, lo
        strh    w3, [x0], 2
        subs    w2, w2, 1
        b.ne    1b
        mov     w3, 0x000d              // a new line
        movk    w3, 0x000a, lsl 16
        stp     w3, wzr, [x0]
        add     x1, sp, TEXT
        bl      print
        mov     x0, x28
        ldp     x27, x28, [sp, 0x50]
        ldp     x25, x26, [sp, 0x40]
        ldp     x23, x24, [sp, 0x30]
        ldp     x21, x22, [sp, 0x20]
        ldp     x19, x20, [sp, 0x10]
        ldp     x29, x30, [sp], FRAME
        ret

// Prints the text at x1.
print:
        ldr     x0, [x21, SYSTEM_TABLE_CON_OUT]
        ldr     x9, [x0, CON_OUT_OUTPUT_STRING]
        br      x9

// Calls x9 with x0 and the initrd's two protocols.
initrd_protocols:
        adr     x1, guid_device_path
        adr     x2, initrd_path
        adr     x3, guid_load_file
        add     x4, sp, LOAD_FILE
        mov     x5, 0
        br      x9

// EFI_LOAD_FILE2.LoadFile(this, path, is for booting, length, buffer).
load_file:
        and     w2, w2, 0xff
        cbz     w2, 1f
        mov     x0, UNSUPPORTED
        b       3f
1:      cbnz    x3, 2f
        mov     x0, INVALID_PARAMETER
        b       3f
2:      ldr     x2, [x0, INITRD_BYTES - LOAD_FILE]
        ldr     x5, [x3]
        str     x2, [x3]
        ldr     x1, [x0, INITRD - LOAD_FILE]
        mov     x0, BUFFER_TOO_SMALL
        cbz     x4, 3f
        cmp     x5, x2
        b.lo    3f
        mov     x0, x4
        mov     x9, x30
        bl      copy
        mov     x0, 0
        ret     x9
3:      orr     x0, x0, 1 << 63         // an error
        ret

// Copies x2 bytes from x1 to x0, 16 at a time. Changes x5 and x6 too.
copy:
        subs    x2, x2, 16
        b.lo    2f
1:      ldp     x5, x6, [x1], 16
        stp     x5, x6, [x0], 16
        subs    x2, x2, 16
        b.hs    1b
2:      adds    x2, x2, 16
        b.eq    4f
3:      ldrb    w5, [x1], 1
        strb    w5, [x0], 1
        subs    x2, x2, 1
        b.ne    3b
4:      ret

        .include "efi-data.S"
