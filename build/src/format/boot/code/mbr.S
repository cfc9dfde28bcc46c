# The boot record of a disk: loads the second stage, of which it knows the place, and jumps to it. It stands in front of
# the partition table, so it has 440 bytes. Assembled for address 0x600, to which it moves itself.

        .intel_syntax noprefix
        .code16
        .text

        .set    STAGE, 0x7c00           # where the firmware put us, and where the second stage belongs
        .set    STAGE_SECTORS, 4
        .set    FROM_DISK, 0x6e6c696b   # tells the second stage that it was not loaded from a CD
        .set    TRIES, 5

start:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, STAGE
        sti
        cld
        mov     si, STAGE
        mov     di, offset start
        mov     cx, 256
        rep movsw
        jmp     0:1f                    # dl: the drive
1:
        push    dx
        mov     ah, 0x41                # are there extensions?
        mov     bx, 0x55aa
        int     0x13
        pop     dx
        mov     si, offset text_extensions
        jc      failed
        cmp     bx, 0xaa55
        jne     failed
        test    cl, 1
        jz      failed
        mov     cx, TRIES
2:      push    cx
        push    dx
        mov     word ptr [packet_sectors], STAGE_SECTORS
        mov     si, offset packet
        mov     ah, 0x42                # extended read
        int     0x13
        pop     dx
        pop     cx
        jnc     3f
        push    cx
        push    dx
        xor     ah, ah                  # reset
        int     0x13
        pop     dx
        pop     cx
        loop    2b
        mov     si, offset text_read
        jmp     failed
3:      mov     esi, FROM_DISK
        cmp     [STAGE + 4], esi
        jne     4f
        jmp     0:STAGE
4:      mov     si, offset text_stage

failed: lodsb
        test    al, al
        jz      5f
        mov     ah, 0x0e
        mov     bx, 7
        int     0x10
        jmp     failed
5:      xor     ah, ah                  # a key
        int     0x16
        ljmp    0xffff, 0

text_extensions:
        .asciz  "kiln: this BIOS cannot read disks by block number\r\n"
text_read:
        .asciz  "kiln: the disk cannot be read\r\n"
text_stage:
        .asciz  "kiln: the boot loader on this disk is damaged\r\n"

        .org    424, 0
packet: .byte   16, 0
packet_sectors:
        .word   0
        .word   STAGE, 0
        .quad   0                       # the second stage's first block: filled in by the writer of the image
