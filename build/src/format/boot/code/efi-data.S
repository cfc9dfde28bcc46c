/* What the EFI programs of all architectures have behind their code. */

        .balign 8, 0
guid_loaded_image:                      /* 5b1b31a1-9562-11d2-8e3f-00a0c969723b */
        .long   0x5b1b31a1
        .short  0x9562, 0x11d2
        .byte   0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
guid_device_path:                       /* 09576e91-6d3f-11d2-8e39-00a0c969723b */
        .long   0x09576e91
        .short  0x6d3f, 0x11d2
        .byte   0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
guid_load_file:                         /* 4006c0c1-fcb3-403e-996d-4a6c8724e06d */
        .long   0x4006c0c1
        .short  0xfcb3, 0x403e
        .byte   0x99, 0x6d, 0x4a, 0x6c, 0x87, 0x24, 0xe0, 0x6d
guid_memory_attribute:                  /* f4560cf6-40ec-4b4a-a192-bf1d57d0b189 */
        .long   0xf4560cf6
        .short  0x40ec, 0x4b4a
        .byte   0xa1, 0x92, 0xbf, 0x1d, 0x57, 0xd0, 0xb1, 0x89
initrd_path:                            /* a vendor's media path, then the end: 5568e427-68fc-4f3d-ac74-ca555231cc68 */
        .byte   4, 3, 20, 0
        .long   0x5568e427
        .short  0x68fc, 0x4f3d
        .byte   0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68
        .byte   0x7f, 0xff, 4, 0

text_start:
        .string16 "kiln: cannot start Linux: "
text_image:
        .string16 "no loaded image, EFI status "
text_memory:
        .string16 "too little memory for the kernel, EFI status "
text_initrd:
        .string16 "the initrd was refused, EFI status "
text_kernel:
        .string16 "the kernel gave up, EFI status "

/* What the writer of the image fills in. Offsets count from the first byte of the code. */
        .balign 8, 0
table:
table_pages:            .long 0         /* of 4 KiB, that the kernel and its alignment take */
table_alignment:        .long 0         /* in bytes */
table_image_bytes:      .long 0         /* whole pages */
table_entry:            .long 0         /* where the kernel is entered, from its start */
table_cmdline:          .long 0         /* offset */
table_cmdline_bytes:    .long 0
table_initrd:           .long 0         /* offset */
table_initrd_bytes:     .long 0
table_copies:           .zero COPIES * 12       /* each: to (from the kernel's start), from (an offset), bytes */
