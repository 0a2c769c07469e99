//! Block sharing: where the file system can, a large file of the source takes no space of its own in the store; elsewhere it is copied.
//! Needs root, and the programs that make the file systems.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::World;

/// How long the file is, in bytes: far more than what the store and the file system need for themselves.
const FILE_BYTES: usize = 64 << 20;

/// How large the file system is, in bytes: the smallest that `mkfs.xfs` makes has 300 MiB. Its image is sparse.
const IMAGE_BYTES: u64 = 512 << 20;

/// A mounted image, which goes with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[&self.0]);
    }
}

#[track_caller]
fn run(program: &str, paths: &[&Path]) {
    let status = Command::new(program).args(paths).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").status();
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{program} {paths:?}: {status:?}");
}

/// Puts a new file system where the world has its data.
fn mount(world: &World, make: &str) -> Mounted {
    let (image, data) = (world.path().join("image"), world.path().join("data"));
    fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).expect("the image");
    run(make, &[Path::new("-q"), &image]);
    run("mount", &[Path::new("-o"), Path::new("loop"), &image, &data]);
    Mounted(data)
}

fn used_bytes(path: &Path) -> usize {
    let found = rustix::fs::statvfs(path).expect("the file system");
    usize::try_from((found.f_blocks - found.f_bfree) * found.f_frsize).expect("it is small")
}

#[test]
fn large_files_share_their_blocks_with_the_source_where_the_file_system_can() {
    for (make, shares) in [("mkfs.xfs", true), ("mkfs.ext4", false)] {
        let world = World::empty();
        let mounted = mount(&world, make);
        let source = mounted.0.join("source");
        fs::create_dir(&source).expect("the source");
        let content: Vec<u8> = (0..FILE_BYTES / 4).flat_map(|number| u32::try_from(number).expect("it is small").to_le_bytes()).collect();
        fs::write(source.join("large"), &content).expect("the file");
        run("sync", &[&source]);
        let before = used_bytes(&source);
        let object = world.sarsen(&["store", "add", "../data/source"]).expect(0).stdout.trim_end().to_owned();
        let grown = used_bytes(&source).saturating_sub(before);
        assert_eq!(grown < FILE_BYTES / 2, shares, "{make}: {grown} bytes more");
        // What happens to the source afterwards is nothing to the store.
        fs::write(source.join("large"), vec![b'!'; FILE_BYTES]).expect("the file");
        let kept = fs::read(world.root().join("store").join(object).join("large")).expect("the file in the store");
        assert!(kept == content, "{make}: the object has changed");
        world.sarsen(&["store", "verify"]).expect(0);
    }
}
