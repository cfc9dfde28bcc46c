# The EFI program of a unified kernel image, for x86-64. Microsoft's calling convention, position independent, nothing
# writable of its own: what changes is on the stack, so that the image can be mapped without pages both writable and
# executable.
#
# It puts the kernel where the table behind the code says, offers the initrd as Linux asks for it (EFI_LOAD_FILE2 at the
# vendor's media path), gives the command line as load options, and calls the kernel with its own handle. The kernel is
# not handed to LoadImage(), so it needs no signature of its own: that of the whole image covers it.
#
# UEFI 2.10: sections 4.3 (system table), 4.4 (boot services), 9.1 (loaded image), 13.2 (load file 2).

        .intel_syntax noprefix
        .code64
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
        .set    COPIES, 8               # rows of the table

        # The frame. Below VALUE are 48 bytes for calls: four homes of register arguments and two more arguments.
        .set    VALUE, 0x30             # what a call gives back
        .set    PAGES, 0x38             # the kernel's memory, as allocated
        .set    KERNEL, 0x40            # the same, aligned
        .set    OLD_BASE, 0x48
        .set    OLD_SIZE, 0x50
        .set    HANDLE, 0x58            # of the initrd
        .set    LOAD_FILE, 0x60         # EFI_LOAD_FILE2: one function,
        .set    INITRD, 0x68            # and behind it what is ours
        .set    INITRD_BYTES, 0x70
        .set    TEXT, 0x78              # room for 20 digits and characters
        .set    FRAME, 0xb8             # with eight pushed registers and the return address: a multiple of 16

start:
        push    rbp
        push    rbx
        push    rsi
        push    rdi
        push    r12
        push    r13
        push    r14
        push    r15
        sub     rsp, FRAME
        cld
        lea     rbx, [rip + start]      # what the table's offsets count from
        mov     r12, rcx                # our handle
        mov     r13, rdx                # the system table
        mov     r14, [rdx + SYSTEM_TABLE_BOOT_SERVICES]
        lea     rbp, [rip + table]

        lea     rdx, [rip + guid_loaded_image]
        lea     r8, [rsp + VALUE]
        call    [r14 + HANDLE_PROTOCOL]
        lea     rdi, [rip + text_image]
        test    rax, rax
        jnz     failed
        mov     r15, [rsp + VALUE]      # the loaded image

        # Memory for the kernel, zeroed, then its pieces.
        xor     ecx, ecx
        mov     edx, LOADER_CODE
        mov     r8d, [rbp + table_pages - table]
        lea     r9, [rsp + PAGES]
        call    [r14 + ALLOCATE_PAGES]
        lea     rdi, [rip + text_memory]
        test    rax, rax
        jnz     failed
        mov     eax, [rbp + table_alignment - table]
        mov     rdx, [rsp + PAGES]
        lea     rdx, [rdx + rax - 1]
        neg     rax
        and     rdx, rax
        mov     [rsp + KERNEL], rdx
        mov     rdi, rdx
        mov     ecx, [rbp + table_image_bytes - table]
        shr     ecx, 3                  # whole pages
        xor     eax, eax
        rep stosq
        lea     rax, [rbp + table_copies - table]
        mov     r8d, COPIES
1:      mov     edi, [rax]
        add     rdi, rdx
        mov     esi, [rax + 4]
        add     rsi, rbx
        mov     ecx, [rax + 8]
        call    copy
        add     rax, 12
        dec     r8d
        jnz     1b

        # Firmware that maps such memory without execution has a protocol to allow it.
        lea     rcx, [rip + guid_memory_attribute]
        xor     edx, edx
        lea     r8, [rsp + VALUE]
        call    [r14 + LOCATE_PROTOCOL]
        test    rax, rax
        jnz     2f
        mov     rcx, [rsp + VALUE]
        mov     rdx, [rsp + KERNEL]
        mov     r8d, [rbp + table_image_bytes - table]
        mov     r9d, MEMORY_RP_XP_RO
        call    [rcx + CLEAR_MEMORY_ATTRIBUTES]
2:
        # The command line, as UTF-16.
        mov     ecx, LOADER_DATA
        mov     edx, [rbp + table_cmdline_bytes - table]
        lea     rdx, [rdx + rdx + 2]
        lea     r8, [rsp + VALUE]
        call    [r14 + ALLOCATE_POOL]
        lea     rdi, [rip + text_memory]
        test    rax, rax
        jnz     release
        mov     rdi, [rsp + VALUE]
        mov     [r15 + IMAGE_LOAD_OPTIONS], rdi
        mov     esi, [rbp + table_cmdline - table]
        add     rsi, rbx
        mov     ecx, [rbp + table_cmdline_bytes - table]
        lea     eax, [rcx + rcx + 2]
        mov     [r15 + IMAGE_LOAD_OPTIONS_SIZE], eax
        xor     eax, eax
        jrcxz   4f
3:      lodsb
        stosw
        loop    3b
4:      mov     [rdi], cx

        # The initrd, if there is one.
        mov     qword ptr [rsp + HANDLE], 0
        mov     ecx, [rbp + table_initrd_bytes - table]
        mov     [rsp + INITRD_BYTES], rcx
        jrcxz   5f
        mov     eax, [rbp + table_initrd - table]
        add     rax, rbx
        mov     [rsp + INITRD], rax
        lea     rax, [rip + load_file]
        mov     [rsp + LOAD_FILE], rax
        mov     eax, INSTALL_PROTOCOLS
        lea     rcx, [rsp + HANDLE]
        call    initrd_protocols
        lea     rdi, [rip + text_initrd]
        test    rax, rax
        jnz     release
5:
        # The kernel finds itself and its options by our handle.
        mov     rax, [r15 + IMAGE_BASE]
        mov     [rsp + OLD_BASE], rax
        mov     rax, [r15 + IMAGE_SIZE]
        mov     [rsp + OLD_SIZE], rax
        mov     rdx, [rsp + KERNEL]
        mov     [r15 + IMAGE_BASE], rdx
        mov     eax, [rbp + table_image_bytes - table]
        mov     [r15 + IMAGE_SIZE], rax
        mov     eax, [rbp + table_entry - table]
        add     rax, rdx
        mov     rcx, r12
        mov     rdx, r13
        call    rax

        # Only a kernel that cannot run comes back.
        mov     rsi, rax
        mov     rax, [rsp + OLD_BASE]
        mov     [r15 + IMAGE_BASE], rax
        mov     rax, [rsp + OLD_SIZE]
        mov     [r15 + IMAGE_SIZE], rax
        xor     eax, eax
        mov     [r15 + IMAGE_LOAD_OPTIONS], rax
        mov     [r15 + IMAGE_LOAD_OPTIONS_SIZE], eax
        mov     rcx, [rsp + HANDLE]
        jrcxz   6f
        mov     eax, UNINSTALL_PROTOCOLS
        call    initrd_protocols
6:      mov     rax, rsi
        lea     rdi, [rip + text_kernel]

release:                                # rax: status, rdi: what failed
        mov     rsi, rax
        mov     rcx, [rsp + PAGES]
        mov     edx, [rbp + table_pages - table]
        call    [r14 + FREE_PAGES]
        mov     rax, rsi

failed:                                 # rax: status, rdi: what failed
        mov     rsi, rax
        lea     rdx, [rip + text_start]
        call    print
        mov     rdx, rdi
        call    print
        # The status in hexadecimal: the error bit, and what it is.
        lea     rdi, [rsp + TEXT]
        mov     rdx, rsi
        mov     ecx, 16
7:      rol     rdx, 4
        mov     eax, edx
        and     eax, 15
        cmp     al, 10
        jb      8f
        add     al, 'a' - '0' - 10
8:      add     al, '0'
        stosw
        loop    7b
        mov     eax, 0x000a000d         # a new line
        stosd
        mov     [rdi], ecx
        lea     rdx, [rsp + TEXT]
        call    print
        mov     rax, rsi
        add     rsp, FRAME
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rdi
        pop     rsi
        pop     rbx
        pop     rbp
        ret

# Copies rcx bytes from rsi to rdi, eight at a time. Changes r9 too.
copy:
        mov     r9d, ecx
        shr     rcx, 3
        rep movsq
        mov     ecx, r9d
        and     ecx, 7
        rep movsb
        ret

# Prints the text at rdx.
print:
        mov     rcx, [r13 + SYSTEM_TABLE_CON_OUT]
        sub     rsp, 0x28
        call    [rcx + CON_OUT_OUTPUT_STRING]
        add     rsp, 0x28
        ret

# Calls the boot service at offset rax with rcx and the initrd's two protocols. Called from the frame, which is 8 bytes
# further away from here on.
initrd_protocols:
        lea     rdx, [rsp + 8 + LOAD_FILE]
        sub     rsp, 0x38
        mov     [rsp + 0x20], rdx
        xor     edx, edx
        mov     [rsp + 0x28], rdx
        lea     rdx, [rip + guid_device_path]
        lea     r8, [rip + initrd_path]
        lea     r9, [rip + guid_load_file]
        call    [r14 + rax]
        add     rsp, 0x38
        ret

# EFI_LOAD_FILE2.LoadFile(this, path, is for booting, length, buffer).
load_file:
        test    r8b, r8b
        mov     eax, UNSUPPORTED
        jnz     2f
        mov     al, INVALID_PARAMETER
        test    r9, r9
        jz      2f
        mov     r10, [rsp + 0x28]
        mov     rdx, [rcx + INITRD_BYTES - LOAD_FILE]
        mov     r8, [r9]
        mov     [r9], rdx
        mov     al, BUFFER_TOO_SMALL
        test    r10, r10
        jz      2f
        cmp     r8, rdx
        jb      2f
        push    rsi
        push    rdi
        mov     rdi, r10
        mov     rsi, [rcx + INITRD - LOAD_FILE]
        mov     rcx, rdx
        call    copy
        pop     rdi
        pop     rsi
        xor     eax, eax
        ret
2:      bts     rax, 63                 # an error
        ret

        .include "efi-data.S"
