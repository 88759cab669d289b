// SPDX-License-Identifier: BSD-3-Clause
// Command lines as people mistype them, and the line that each gets.
#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "cli/testing/program.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

using Words = std::vector<std::string>;

struct Mistake {
  Words words;
  int status;
  std::string line;  ///< without "mkvirtfs: "
};

/// The words of a line, of which none has a blank in it.
Words split(const std::string& line) {
  Words words;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t end = std::min(line.find(' ', at), line.size());
    if (end > at) words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

/// A directory with sources, in which the program runs.
struct Place {
  Place() {
    std::filesystem::create_directory(dir / "dir");
    write_file(dir / "dir/f", "x");
    std::filesystem::create_directory(dir / "a=b");
    write_file(dir / "plain.txt", "no archive\n");
    std::filesystem::current_path(dir.path());
  }
  ~Place() { std::filesystem::current_path("/"); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  TempDir dir;
};

void check(const Mistake& mistake) {
  CAPTURE(mistake.words);
  const testing::Outcome outcome = testing::run_here(mistake.words);
  CHECK(outcome.err == "mkvirtfs: " + mistake.line + "\n");
  CHECK(outcome.status == mistake.status);
  CHECK(outcome.out.empty());
}

}  // namespace

TEST_CASE("each mistyped command line gets a line that helps", "[one-thread]") {
  const Place place;
  for (const auto& [line, status, said] : std::vector<std::tuple<std::string, int, std::string>>{
           {"./dir", 2,
            "./dir is no subcommand: to serve it, mkvirtfs serve ./dir; to write an image, "
            "mkvirtfs dump ./dir -o FILE (see mkvirtfs --help)"},
           {"dir", 2,
            "dir is no subcommand: to serve it, mkvirtfs serve dir; to write an image, mkvirtfs "
            "dump dir -o FILE (see mkvirtfs --help)"},
           {"help sevre", 2, "there is no subcommand sevre (did you mean serve?)"},
           {"sevre dir", 2, "there is no subcommand sevre (did you mean serve?)"},
           {"Serve dir", 2, "there is no subcommand Serve (did you mean serve?)"},
           {"inpect dir", 2, "there is no subcommand inpect (did you mean inspect?)"},
           {"version", 2, "there is no subcommand version (did you mean --version?)"},
           {"mount dir", 2, "there is no subcommand mount (did you mean serve?)"},
           {"mkfs dir", 2, "there is no subcommand mkfs (did you mean dump?)"},
           {"info dir", 2, "there is no subcommand info (did you mean inspect?)"},
           {"frobnicate", 2,
            "there is no subcommand frobnicate (those are serve, dump, boot, inspect, ls, cat, "
            "stat, extract, list, overlay, ctl) (see mkvirtfs --help)"},
           {"cat -:/etc/hostname", 2,
            "-:/etc/hostname is taken for an option: write -- -:/etc/hostname (see mkvirtfs cat "
            "--help)"},
           {"oci:layout", 2,
            "oci:layout is no subcommand: to serve it, mkvirtfs serve oci:layout; to write an "
            "image, mkvirtfs dump oci:layout -o FILE (see mkvirtfs --help)"},
           {"--versoin", 2, "there is no option --versoin (did you mean --version?)"},
           {"-v", 2, "there is no option -v (did you mean -V?)"},
           {"--fs=ext4 dump dir", 2,
            "--fs belongs behind the subcommand, as in mkvirtfs serve ... --fs=ext4 (see mkvirtfs "
            "dump --help)"},
           {"--fs=ext4 dir", 2,
            "--fs belongs behind the subcommand, as in mkvirtfs serve ... --fs=ext4 (see mkvirtfs "
            "--help)"},
           {"serve", 2,
            "SOURCE is missing: a directory, an archive (- is standard input) or oci:PATH to show; "
            "also NAME=that[,OPTION...] (see mkvirtfs serve --help)"},
           {"inspect", 2,
            "SOURCE is missing: a directory, an archive (- is standard input) or oci:PATH to show; "
            "later ones lie over earlier ones (see mkvirtfs inspect --help)"},
           {"dump dir", 2,
            "--output=FILE|- is missing: write the image there; '-' is standard output (see "
            "mkvirtfs dump --help)"},
           {"dump dir dir.img", 2,
            "--output=FILE|- is missing: write the image there; '-' is standard output (see "
            "mkvirtfs dump --help)"},
           {"dump -o x.img", 2,
            "SOURCE is missing: a directory, an archive (- is standard input) or oci:PATH to show; "
            "later ones lie over earlier ones (see mkvirtfs dump --help)"},
           {"list", 2,
            "URI is missing: the server, and what to list: nbd://HOST/PATH (see mkvirtfs list "
            "--help)"},
           {"list a b", 2, "list does not take the word b (see mkvirtfs list --help)"},
           {"ctl", 2, "SOCKET is missing: the socket of serve --ctl (see mkvirtfs ctl --help)"},
           {"ctl sock", 2,
            "WHAT is missing: one of list, diff, save, snapshot, discard, stats (see mkvirtfs ctl "
            "--help)"},
           {"ctl sock dif", 2,
            "dif is none of list, diff, save, snapshot, discard, stats (did you mean diff?)"},
           {"ctl sock diff", 2, "diff takes one name: NAME"},
           {"ctl sock snapshot a", 2, "snapshot takes two names: NAME CHILD"},
           {"ctl sock list a", 2, "list takes no name"},
           {"ctl sock save a", 2, "save needs --output=FILE"},
           {"ctl sock list -o x", 2, "--output is for save"},
           {"overlay", 2,
            "WHAT is missing: one of check, info, seal, export (see mkvirtfs overlay --help)"},
           {"overlay chek x", 2, "chek is none of check, info, seal, export (did you mean check?)"},
           {"overlay check", 2, "FILE is missing: the overlay (see mkvirtfs overlay --help)"},
           {"overlay info x y", 2,
            "overlay does not take the word y (see mkvirtfs overlay --help)"},
           {"overlay info x -o y", 2, "-o is for overlay export"},
           {"overlay export x", 2, "overlay export needs -o OUT"},
           {"serve --help-all", 2, "serve has no option --help-all (see mkvirtfs serve --help)"},
           {"serve dir --szie=4G", 2, "serve has no option --szie (did you mean --size?)"},
           {"serve dir --ro", 2, "serve has no option --ro (see mkvirtfs serve --help)"},
           {"serve dir --read-only", 2,
            "serve has no option --read-only (did you mean --readonly?)"},
           {"serve dir --socket=x", 2, "serve has no option --socket (did you mean --unix?)"},
           {"serve dir --format=iso", 2,
            "serve has no option --format; it is an option of dump (did you mean --fs?)"},
           {"serve dir --type ext4", 2, "serve has no option --type (did you mean --fs?)"},
           {"serve dir -fs=ext4", 2, "serve has no option -fs (did you mean --fs?)"},
           {"serve dir -t ext4", 2, "serve has no option -t (see mkvirtfs serve --help)"},
           {"serve dir --size", 2,
            "--size=SIZE: the value is missing (make the image exactly this large: also min (ext)) "
            "(see mkvirtfs "
            "serve --help)"},
           {"serve dir --fs", 2,
            "--fs=FORMAT: the value is missing (one of ext2, ext3, ext4, fat, fat12, fat16, fat32, "
            "iso, erofs) (see mkvirtfs serve --help)"},
           {"serve dir --clone", 2,
            "--clone=GLOB: the value is missing (exports of these names are writable copies of the "
            "default one (repeatable)) (see mkvirtfs serve --help)"},
           {"serve dir -p", 2,
            "--port=PORT: the value is missing (listen on this port of localhost; 0: any free) "
            "(see mkvirtfs serve --help)"},
           {"serve dir -p http", 2, "--port=http is not a port (0 to 65535)"},
           {"serve dir --listen=localhost", 2,
            "--listen=localhost is not ADDRESS:PORT (127.0.0.1:10809, [::1]:10809; 0.0.0.0:10809 "
            "for every interface)"},
           {"serve dir --no foo", 2,
            "--no: \"foo\" is no feature that can be masked (structured, extended-headers, "
            "meta-context, extents, list, hier, multi-conn, df, flush, fua, trim, zeroes, "
            "fast-zero, cache)"},
           {"serve dir --timeout=1m", 2, "--timeout=1m is not a number of seconds up to 1000000"},
           {"serve dir -e /x", 2,
            "--exportname=/x cannot be an export's name (no empty, . or .. components, UTF-8, up "
            "to 4096 bytes)"},
           {"serve dir -v --log-level=info", 2,
            "--log-level and --verbose cannot be given together (see mkvirtfs serve --help)"},
           {"serve dir --log-level=warn", 2,
            "--log-level: warn is none of error, warning, info, debug (did you mean warning?)"},
           {"serve dir --tls=yes", 2,
            "--tls: yes is none of off, on, require (see mkvirtfs serve --help)"},
           {"serve dir --on-change=zeros", 2,
            "--on-change: zeros is none of error, zero, stale (did you mean zero?)"},
           {"serve dir -r --rw", 2,
            "--readonly and writable exports (--rw, --overlay, --clone) exclude each other"},
           {"serve dir --overlay-max=3", 2,
            "--overlay-max is for writable exports: --rw or --clone"},
           {"serve a=b", 1, "a=b: b does not exist (the source of that name is ./a=b)"},
           {"serve a=", 2, "a=: no source follows the = (is a variable of the shell not set?)"},
           {"serve a=none", 1, "a=none: none does not exist"},
           {"serve a=dir,sz=3", 2,
            "a=dir,sz=3: a source has no option sz (a comma in a path is ,,)"},
           {"serve a=dir,siez=3", 2,
            "a=dir,siez=3: a source has no option siez (did you mean size?)"},
           {"serve a=dir a=dir,fs=ext4", 2,
            "a=dir,fs=ext4: a source has no option fs (a comma in a path is ,,); options of the "
            "image "
            "go with the first a="},
           {"serve a=dir,fs=ext5", 2,
            "a=dir,fs=ext5: --fs=ext5: none of ext2, ext3, ext4, fat, fat12, fat16, fat32, iso, "
            "erofs"},
           {"serve a=dir,size", 2, "a=dir,size: size needs a value: size=SIZE"},
           {"serve a=dir,journal=yes", 2, "a=dir,journal=yes: journal takes no value"},
           {"serve a=dir,size=1G,free=1G", 2,
            "a=dir,size=1G,free=1G: --size and --free cannot be given together"},
           {"serve a=docker://x", 1,
            "docker://x: images in a registry are not read (try skopeo copy docker://x oci:DIR, "
            "and oci:DIR)"},
           {"serve dir fs=ext4", 1, "fs=ext4: ext4 does not exist (did you mean --fs=ext4?)"},
           {"serve dir size=3G", 1, "size=3G: 3G does not exist (did you mean --size=3G?)"},
           {"serve dir a=-", 2, "a=-: standard input can only be a source without a name"},
           {"dump dir -o", 2,
            "--output=FILE|-: the value is missing (write the image there; '-' is standard output) "
            "(see mkvirtfs dump --help)"},
           {"dump dir --out=x", 2, "dump has no option --out (did you mean --output?)"},
           {"dump dir -o x -o y", 2, "--output is given more than once (see mkvirtfs dump --help)"},
           {"dump dir -o x --fre=1G", 2, "dump has no option --fre (did you mean --free?)"},
           {"dump dir -o x --sha255", 2, "dump has no option --sha255 (did you mean --sha256?)"},
           {"dump dir -o x --port=1", 2,
            "dump has no option --port; it is an option of serve (see mkvirtfs dump --help)"},
           {"dump dir -o x --force=yes", 2, "--force takes no value (see mkvirtfs dump --help)"},
           {"dump dir -o x --progress=9999", 2, "--progress=9999 is not an open descriptor"},
           {"dump dir -o dir", 1, "dir is a directory; the image needs the name of a file"},
           {"dump dir -o /none/x", 1, "create /none/x: No such file or directory"},
           {"dump a=dir -o x", 2, "a=dir does not exist (NAME=DIR is for serve; here it is dir)"},
           {"dump dir,fs=ext4 -o x", 2,
            "dir,fs=ext4 does not exist (options behind a comma are for serve's NAME=dir,...)"},
           {"inspect dir --fs ext5", 2,
            "--fs: ext5 is none of ext2, ext3, ext4, fat, fat12, fat16, fat32, iso, erofs (see "
            "mkvirtfs "
            "inspect --help)"},
           {"inspect dir --fs EXT4", 2,
            "--fs: EXT4 is none of ext2, ext3, ext4, fat, fat12, fat16, fat32, iso, erofs (did you "
            "mean "
            "ext4?)"},
           {"inspect dir --fs=", 2, "--fs: the value is empty (see mkvirtfs inspect --help)"},
           {"inspect dir -fs ext4", 2, "inspect has no option -fs (did you mean --fs?)"},
           {"inspect dir --JSON", 2, "inspect has no option --JSON (did you mean --json?)"},
           {"inspect dir --json=1", 2, "--json takes no value (see mkvirtfs inspect --help)"},
           {"inspect dir --map=abc", 2, "--map=abc is not an offset (65536, 64K, 1GiB)"},
           {"inspect dir --map=9P", 2, "--map=9P lies behind the image's end at 69206016"},
           {"inspect dir --label", 2,
            "--label=TEXT: the value is missing (volume label: 16 bytes (ext), 11 (FAT), 32 (ISO), "
            "15 (EROFS)) "
            "(see mkvirtfs inspect --help)"},
           {"inspect dir --threads=", 2,
            "--threads: the value is empty (see mkvirtfs inspect --help)"},
           {"inspect dir --threads=x", 2, "--threads=x: not a number from 1 to 256"},
           {"inspect dir --size=10GBs", 2, "--size=10GBs: not a size (1536, 64M, 4GiB)"},
           {"inspect dir --size=1G --free=1G", 2,
            "--size and --free cannot be given together (see mkvirtfs inspect --help)"},
           {"inspect dir --journal --no-journal", 2,
            "--journal and --no-journal cannot be given together (see mkvirtfs inspect --help)"},
           {"inspect dir --features=foo", 2,
            "--features=foo: not a feature that can be chosen (those are dir_index, sparse_super, "
            "metadata_csum, metadata_csum_seed, 64bit, extent, flex_bg, large_dir, ea_inode, "
            "orphan_file, quota, project, has_journal, resize_inode)"},
           {"inspect dir --fs=fat --root-mode=755", 2, "--root-mode: fat has no such option"},
           {"inspect dir --extended=stride", 2,
            "--extended=stride: not a number of blocks from 1 to 65535"},
           {"inspect dir --extended=lazy_itable_init=1", 2,
            "--extended=lazy_itable_init=1: not one of hash_seed=UUID, stride=BLOCKS, "
            "stripe_width=BLOCKS, errors=WORD"},
           {"inspect dir --extended=errors=explode", 2,
            "--extended=errors=explode: not continue, remount-ro or panic"},
           {"inspect dir --mode-mask=999", 2, "--mode-mask=999: not an octal number up to 7777"},
           {"inspect dir --at=/x", 2,
            "--at=/x says where the next source stands, and none follows"},
           {"inspect --at dir", 2, "--at=dir says where the next source stands, and none follows"},
           {"inspect none", 1, "none does not exist"},
           {"inspect dir none", 1, "none does not exist"},
           {"inspect plain.txt", 1,
            "plain.txt is not a directory or a supported archive (try --file)"},
           {"inspect docker://alpine", 1,
            "docker://alpine: images in a registry are not read (try skopeo copy docker://alpine "
            "oci:DIR, and oci:DIR)"},
           {"inspect http://host/a.tar", 1,
            "http://host/a.tar: sources are not read over the network (try curl -L "
            "http://host/a.tar, and - as the source)"},
           {"inspect oci://layout", 1,
            "oci://layout: a path follows the first colon as it is (try oci:layout)"},
           {"inspect oci:layout", 1, "oci:layout: layout does not exist"},
           {"inspect --file", 2,
            "--file=PATH=HOSTFILE: the value is missing (put a file at PATH in the image; - is "
            "standard input; no SOURCE is needed) (see mkvirtfs inspect --help)"},
           {"inspect --file x", 2, "--file=x: not PATH=HOSTFILE"},
           {"inspect --file x=", 2, "--file=x=: not PATH=HOSTFILE"},
           {"inspect --file x=none", 1, "none does not exist"},
           {"inspect --file x=dir", 2, "dir is a directory, and no file"},
           {"inspect --file a/../b=plain.txt", 2,
            "--file=a/../b=plain.txt: a/../b is no path of a file"},
           {"inspect dir --at=/x/ plain.txt", 1,
            "plain.txt is not a directory or a supported archive (try --file)"},
           {"inspect dir --file f/x=plain.txt", 2,
            "plain.txt: /f is no directory in the sources before it, but a file"},
           {"inspect - --file x=-", 2, "standard input can be read once, and two sources want it"},
           {"serve a=dir --file x=plain.txt", 2,
            "--file=x=plain.txt: --file is for sources without a name (here ,file=x=plain.txt)"},
           {"serve a=dir,file=x=-", 2,
            "a=dir,file=x=-: standard input can only be a source without a name"},
           {"serve a=dir,file=x", 2, "a=dir,file=x: --file=x: not PATH=HOSTFILE"},
           {"inspect dir --preset=cidat", 2,
            "--preset: cidat is none of cidata, config-drive, oemdrv, autounattend, proxmox (did "
            "you mean cidata?)"},
           {"inspect dir --preset=cidata --fs=ext4", 2, "--preset: ext4 has no such option"},
           {"inspect dir --preset=oemdrv --label=x", 2,
            "--label=x: Anaconda looks for the label OEMDRV"},
           {"inspect --preset=cidata --file user-data.yaml=plain.txt", 1,
            "user-data is not a file in the source, user-data.yaml is; cloud-init needs user-data "
            "and meta-data (an empty one will do)"},
           {"list localhost", 2,
            "localhost: this is no URI (nbd://HOST:PORT/NAME, nbd+unix:///NAME?socket=PATH)"},
       }) {
    check({split(line), status, said});
  }
}

TEST_CASE("an empty source is said to be one") {
  const Place place;
  const std::string said = "a source is empty (is a variable of the shell not set?)";
  for (const Words& words : std::vector<Words>{
           {"inspect", ""}, {"dump", "", "-o", "x"}, {"serve", ""}, {"inspect", "dir", ""}}) {
    check({words, 2, said});
  }
  check({{"inspect", "dir", "--size", ""},
         2,
         "--size: the value is empty (see mkvirtfs inspect --help)"});
}

TEST_CASE("help SUBCOMMAND is its --help") {
  for (const char* command : {"serve", "dump", "inspect", "list", "overlay", "ctl"}) {
    const testing::Outcome help = testing::run_here({"help", command});
    CHECK(help.status == 0);
    CHECK(help.err.empty());
    CHECK(help.out == testing::run_here({command, "--help"}).out);
  }
  CHECK(testing::run_here({"help"}).out == testing::run_here({"--help"}).out);
}

TEST_CASE("a pattern that matches nothing is named once, and is no error") {
  const Place place;
  const auto [words, said] = GENERATE(table<Words, std::string>({
      {{"--exclude=f"}, ""},
      {{"--exclude=f", "--exclude=*"}, ""},
      {{"--exclude=nothing", "--exclude=nothing"},
       "mkvirtfs: warning: --exclude=nothing: no entry matches\n"},
      {{"--exclude=f/"}, "mkvirtfs: warning: --exclude=f/: no entry matches\n"},
      {{"--include=g", "--exclude=f"}, "mkvirtfs: warning: --include=g: no entry matches\n"},
      {{"--exclude=./f"},
       "mkvirtfs: warning: --exclude=./f: no entry matches (paths begin below the source, as in "
       "/f)\n"},
      {{"--exclude=dir/f"},
       "mkvirtfs: warning: --exclude=dir/f: no entry matches (paths begin below the source, as "
       "in /f)\n"},
      {{"a=b", "--exclude=f"}, ""},
      {{"--fs=fat", "--fat-hidden=f", "--fat-system=*"}, ""},
      {{"--fs=fat", "--fat-hidden=f/", "--fat-hidden=f/", "--fat-readonly=dir/f"},
       "mkvirtfs: warning: --fat-hidden=f/: no entry matches\n"
       "mkvirtfs: warning: --fat-readonly=dir/f: no entry matches (paths begin below the source, "
       "as in /f)\n"},
  }));
  Words all = {"inspect", "dir"};
  all.insert(all.end(), words.begin(), words.end());
  CAPTURE(all);
  const testing::Outcome outcome = testing::run_here(all);
  CHECK(outcome.status == 0);
  CHECK(outcome.err == said);
}

TEST_CASE("a backslash in a name is printed once") {
  const Place place;
  std::filesystem::create_directory("x\\y");
  const testing::Outcome outcome = testing::run_here({"inspect", "x\\y"});
  CHECK_THAT(outcome.out, Catch::StartsWith("source                     x\\x5cy\n"));
}

TEST_CASE("the help names every format and every kind of source") {
  const std::string help = testing::run_here({"--help"}).out;
  for (const char* word : {"ext2", "ext3", "ext4", "fat", "fat12", "fat16", "fat32", "iso", "erofs",
                           "directories", "archives", "container images"}) {
    CAPTURE(word);
    CHECK_THAT(help, Catch::Contains(word));
  }
}

}  // namespace mkvirtfs::cli
