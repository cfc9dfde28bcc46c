# The second stage of the BIOS boot loader. It is loaded at 0x7c00 by the boot record of a disk, or by firmware as the boot
# image of a CD (El Torito, no emulation). It has 2048 bytes, as some firmware loads no more; the command line follows on
# disk in the next 2048 bytes.
#
# It loads a kernel and an initrd whose places the table at its end tells, and enters the kernel's own real mode code by
# Linux' boot protocol (Documentation/arch/x86/boot.rst). Contents go through a buffer in low memory; they are moved in
# protected mode, which is left again for each call of the firmware.

        .intel_syntax noprefix
        .code16
        .text

        .set    FROM_DISK, 0x6e6c696b   # in esi when the boot record loaded us
        .set    ENTRY, 0x500            # of the memory map
        .set    SETUP, 0x10000          # the kernel's real mode code, its heap and its stack
        .set    SETUP_STACK, 0xe000
        .set    CMDLINE, SETUP + SETUP_STACK
        .set    CMDLINE_BYTES, 2048
        .set    BUFFER, 0x20000         # does not cross a multiple of 64 KiB
        .set    BUFFER_BYTES, 124 * 512 # a read takes at most 127 blocks; 31 of a CD
        .set    HIGH, 0x100000          # the kernel
        .set    TRIES, 5

        .set    CODE32, 0x08
        .set    DATA32, 0x10
        .set    CODE16, 0x18
        .set    DATA16, 0x20

start:
        jmp     begin
        .org    4, 0
        .long   FROM_DISK
begin:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, offset start
        jmp     0:1f                    # some firmware jumps to 0x7c0:0
1:      sti
        cld
        mov     [drive], dl
        cmp     esi, FROM_DISK
        je      2f
        mov     byte ptr [shift], 2     # a CD has blocks of 2048 bytes
2:      mov     si, offset text_loading
        call    print
        call    enable_a20

        mov     eax, [cmdline_lba]
        mov     ecx, CMDLINE_BYTES
        mov     edi, CMDLINE
        call    load
        call    find_memory
        # The kernel's file as a whole, then its real mode code to low memory and the rest to where that was.
        mov     eax, [kernel_lba]
        mov     ecx, [kernel_bytes]
        mov     edi, HIGH
        call    load
        mov     esi, HIGH
        mov     edi, SETUP
        mov     ecx, [setup_bytes]
        call    move
        add     esi, ecx
        mov     edi, HIGH
        neg     ecx
        add     ecx, [kernel_bytes]
        call    move
        mov     ax, SETUP >> 4
        mov     fs, ax
        cmp     dword ptr fs:[0x202], 0x53726448        # HdrS
        mov     si, offset text_kernel
        jne     failed
        mov     eax, [initrd_lba]
        mov     ecx, [initrd_bytes]
        mov     edi, [initrd]
        jecxz   3f
        call    load
3:      mov     si, offset text_done
        call    print

        # What the kernel wants to know.
        mov     ax, SETUP >> 4
        mov     fs, ax
        mov     word ptr fs:[0x1fa], 0xffff             # video mode: as it is
        mov     byte ptr fs:[0x210], 0xff               # a loader without a number
        or      byte ptr fs:[0x211], 0x80               # there is a heap
        mov     word ptr fs:[0x224], SETUP_STACK - 0x200
        mov     dword ptr fs:[0x228], CMDLINE
        mov     eax, [initrd]
        mov     fs:[0x218], eax
        mov     eax, [initrd_bytes]
        mov     fs:[0x21c], eax
        cli
        mov     ax, fs
        mov     ds, ax
        mov     es, ax
        mov     gs, ax
        mov     ss, ax
        mov     esp, SETUP_STACK
        ljmp    (SETUP >> 4) + 0x20, 0

# Finds memory for the initrd, as high as the kernel takes it, and sees whether there is enough for the kernel.
find_memory:
        xor     ebx, ebx
1:      mov     eax, 0xe820
        mov     edx, 0x534d4150         # SMAP
        mov     ecx, 20
        mov     di, ENTRY
        int     0x15
        jc      2f
        cmp     eax, 0x534d4150
        jne     2f
        mov     byte ptr [has_map], 1
        cmp     dword ptr [ENTRY + 16], 1               # memory
        jne     3f
        call    use_memory
3:      test    ebx, ebx
        jnz     1b
2:      cmp     byte ptr [has_map], 0
        jne     5f
        # Old firmware: KiB from 1 to 16 MiB, and blocks of 64 KiB above that.
        mov     ax, 0xe801
        xor     cx, cx
        xor     dx, dx
        int     0x15
        jc      5f
        jcxz    4f
        mov     ax, cx
        mov     bx, dx
4:      movzx   eax, ax
        shl     eax, 10
        movzx   ebx, bx
        shl     ebx, 16
        cmp     eax, 15 << 20
        jne     6f
        add     eax, ebx
6:      mov     dword ptr [ENTRY], HIGH
        mov     [ENTRY + 8], eax
        xor     eax, eax
        mov     [ENTRY + 4], eax
        mov     [ENTRY + 12], eax
        call    use_memory
5:      mov     si, offset text_memory
        cmp     byte ptr [has_kernel], 0
        je      failed
        cmp     dword ptr [initrd_bytes], 0
        je      7f
        cmp     dword ptr [initrd], 0
        je      failed
7:      ret

# Sees what the memory at ENTRY (base and length, 64 bits each) is good for.
use_memory:
        cmp     dword ptr [ENTRY + 4], 0
        jne     9f
        mov     esi, [ENTRY]            # its start
        mov     edi, esi
        xor     edx, edx
        add     edi, [ENTRY + 8]
        adc     edx, [ENTRY + 12]
        jnz     1f
        cmp     edi, [initrd_limit]
        jb      2f
1:      mov     edi, [initrd_limit]
2:      # edi: its end, as far as it counts
        mov     eax, [kernel_end]
        cmp     esi, HIGH
        ja      3f
        cmp     edi, eax
        jb      3f
        mov     byte ptr [has_kernel], 1
3:      cmp     esi, eax
        jae     4f
        mov     esi, eax
4:      sub     edi, [initrd_room]
        jb      9f
        and     di, 0xf000
        cmp     edi, esi
        jb      9f
        cmp     edi, [initrd]
        jb      9f
        mov     [initrd], edi
9:      ret

# Loads ecx bytes from the block eax of 512 bytes to the address edi.
load:
        pushad
1:      mov     ebp, ecx
        cmp     ecx, BUFFER_BYTES
        jbe     2f
        mov     ecx, BUFFER_BYTES
2:      sub     ebp, ecx
        call    read
        mov     esi, BUFFER
        call    move
        add     edi, ecx
        add     eax, BUFFER_BYTES / 512
        inc     word ptr [chunks]
        test    byte ptr [chunks], 0xff
        jnz     3f
        push    ax
        mov     al, '.'                 # every 15.5 MiB
        call    print_character
        pop     ax
3:      mov     ecx, ebp
        test    ecx, ecx
        jnz     1b
        popad
        ret

# Reads ecx bytes, at most BUFFER_BYTES, from the block eax of 512 bytes to the buffer.
read:
        pushad
        mov     ebx, eax
        mov     bp, TRIES
1:      mov     eax, ebx
        mov     edi, ecx
        mov     cl, [shift]
        shr     eax, cl
        mov     [packet_lba], eax
        mov     eax, 512
        shl     eax, cl
        mov     ecx, edi
        lea     edx, [ecx + eax - 1]    # rounded up to blocks
        push    ecx
        bsf     ecx, eax
        shr     edx, cl
        pop     ecx
        mov     [packet_blocks], dx
        mov     si, offset packet
        mov     ah, 0x42                # extended read
        mov     dl, [drive]
        pushad
        int     0x13
        mov     [status], ah
        popad
        jnc     2f
        xor     ah, ah                  # reset
        mov     dl, [drive]
        pushad
        int     0x13
        popad
        dec     bp
        jnz     1b
        mov     si, offset text_read
        call    print
        mov     al, [status]
        call    print_hexadecimal
        mov     si, offset text_done
        jmp     failed
2:      popad
        ret

# Copies ecx bytes from the address esi to the address edi, all of them anywhere below 4 GiB.
move:
        pushad
        cld
        cli
        lgdt    [gdt_register]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        ljmp    CODE32, offset 1f
        .code32
1:      mov     ax, DATA32
        mov     ds, eax
        mov     es, eax
        mov     eax, ecx
        shr     ecx, 2
        rep movsd
        mov     ecx, eax
        and     ecx, 3
        rep movsb
        mov     ax, DATA16
        mov     ds, eax
        mov     es, eax
        ljmp    CODE16, offset 2f
        .code16
2:      mov     eax, cr0
        and     al, 0xfe
        mov     cr0, eax
        ljmp    0, offset 3f
3:      xor     ax, ax
        mov     ds, ax
        mov     es, ax
        sti
        popad
        ret

# Lets addresses above 1 MiB be seen, one way after another.
enable_a20:
        call    has_a20
        jnz     9f
        mov     ax, 0x2401              # the firmware
        int     0x15
        call    has_a20
        jnz     9f
        in      al, 0x92                # the chipset
        or      al, 2
        and     al, 0xfe
        out     0x92, al
        call    has_a20
        jnz     9f
        call    keyboard_ready          # the keyboard controller
        mov     al, 0xd1
        out     0x64, al
        call    keyboard_ready
        mov     al, 0xdf
        out     0x60, al
        call    keyboard_ready
        xor     cx, cx
1:      call    has_a20
        jnz     9f
        in      al, 0x80
        loop    1b
        mov     si, offset text_a20
        jmp     failed
9:      ret

# Whether 0x100500 is another byte than 0x500: not zero if it is.
has_a20:
        mov     ax, 0xffff
        mov     gs, ax
        mov     byte ptr [ENTRY], 0
        mov     byte ptr gs:[ENTRY + 0x10], 0xff
        cmp     byte ptr [ENTRY], 0xff
        ret

keyboard_ready:
        mov     cx, 0xffff
1:      in      al, 0x64
        test    al, 2
        loopnz  1b
        ret

# Prints the text at si, says how to go on, waits for a key and starts the machine again.
failed: call    print
        mov     si, offset text_again
        call    print
        xor     ah, ah
        int     0x16
        ljmp    0xffff, 0

print:  lodsb
        test    al, al
        jz      1f
        call    print_character
        jmp     print
1:      ret

print_hexadecimal:
        push    ax
        shr     al, 4
        call    1f
        pop     ax
1:      and     al, 15
        cmp     al, 10
        jb      2f
        add     al, 'a' - '0' - 10
2:      add     al, '0'
print_character:
        pushad
        mov     ah, 0x0e
        mov     bx, 7
        int     0x10
        popad
        ret

        .balign 8, 0
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # CODE32: all 4 GiB
        .quad   0x00cf93000000ffff      # DATA32
        .quad   0x00009b000000ffff      # CODE16: the first 64 KiB
        .quad   0x000093000000ffff      # DATA16
gdt_register:
        .word   gdt_register - gdt - 1
        .long   gdt

packet: .byte   16, 0
packet_blocks:
        .word   0
        .word   0, BUFFER >> 4
packet_lba:
        .quad   0

initrd: .long   0                       # its address
chunks: .word   0
drive:  .byte   0
shift:  .byte   0                       # blocks of 512 bytes in one of the drive's, as a power of two
status: .byte   0
has_map:
        .byte   0
has_kernel:
        .byte   0

text_loading:
        .asciz  "kiln: loading Linux"
text_done:
        .asciz  "\r\n"
text_read:
        .asciz  "\r\nkiln: the disk cannot be read, BIOS error "
text_kernel:
        .asciz  "\r\nkiln: no kernel where it should be: was the disk changed?"
text_a20:
        .asciz  "\r\nkiln: memory above 1 MiB cannot be used (A20)"
text_again:
        .asciz  "\r\nPress a key to start again.\r\n"

        # What the writer of the image fills in. Blocks are of 512 bytes, on a CD multiples of four.
        .org    2048 - 100, 0
kernel_lba:     .long 0
kernel_bytes:   .long 0
setup_bytes:    .long 0                 # the kernel's real mode code
kernel_end:     .long 0                 # end of the memory that it takes
initrd_lba:     .long 0
initrd_bytes:   .long 0
initrd_room:    .long 0                 # whole pages
initrd_limit:   .long 0                 # end of the memory where the kernel takes it
cmdline_lba:    .long 0
text_memory:                            # with how much is needed
        .zero   64
