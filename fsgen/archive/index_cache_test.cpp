// SPDX-License-Identifier: BSD-3-Clause
// testing/kept-by-0.1.0.index is what mkvirtfs 0.1.0 kept of testing/kept-by-0.1.0.tar.gz, a pax
// archive with a global header (uid 1234, gid 99999) and a member whose mtime is -86400.5. It had
// read neither right.
#include "fsgen/archive/index_cache.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <span>
#include <string>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/stream/packing.h"
#include "support/sha256.h"
#include "support/text.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

std::string as_string(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string sha256_of(std::string_view bytes) {
  Sha256 digest;
  digest.update(std::as_bytes(std::span(bytes)));
  return as_string(digest.finish());
}

/// By what an index goes: as 0.1.0 wrote it (version 2, nothing of how it was read) or a later one.
std::string identity_of(const std::filesystem::path& file, std::uint64_t version) {
  struct stat status{};
  REQUIRE(::stat(file.c_str(), &status) == 0);
  std::vector<std::byte> bytes;
  Packer out(bytes);
  out.text("mkvirtfs archive index");
  out.number(version);
  out.number(status.st_dev);
  out.number(status.st_ino);
  out.number(static_cast<std::uint64_t>(status.st_size));
  out.signed_number(status.st_mtim.tv_sec);
  out.signed_number(status.st_mtim.tv_nsec);
  out.signed_number(status.st_ctim.tv_sec);
  out.signed_number(status.st_ctim.tv_nsec);
  out.number(0);
  out.number(static_cast<std::uint64_t>(status.st_size));
  if (version > 2) out.number(ReadOptions().reading());
  return as_string(bytes);
}

std::filesystem::path file_of(const std::filesystem::path& cache, std::string_view identity) {
  return cache / (hex(sha256_of(identity)) + ".index");
}

/// A kept index under another identity.
std::string renamed(const std::string& index, std::string_view identity) {
  Unpacker in(std::as_bytes(std::span(index)));
  in.text();
  REQUIRE(in.good());
  std::vector<std::byte> head;
  Packer(head).text(identity);
  const std::string body =
      as_string(head) + index.substr(in.position(), index.size() - in.position() - 32);
  return body + sha256_of(body);
}

}  // namespace

TEST_CASE("an index kept by 0.1.0 is not believed, and the tree is right") {
  const std::filesystem::path testing = MKVIRTFS_ARCHIVE_TESTING_DIR;
  const std::string old_index = read_file(testing / "kept-by-0.1.0.index");
  const TempDir dir;
  const std::filesystem::path packed = dir / "a.tar.gz";
  std::filesystem::copy_file(testing / "kept-by-0.1.0.tar.gz", packed);
  std::filesystem::create_directory(dir / "cache");
  std::filesystem::permissions(dir / "cache", std::filesystem::perms::owner_all);
  const IndexCache cache((dir / "cache").string(), null_log());
  const auto source = open_file_source(packed.string(), OnChange::error, null_log());
  REQUIRE(source);
  const auto read = [&] {
    Result<Archive> archive = read_archive(*source, {}, {}, &cache, null_log());
    REQUIRE(archive);
    const Result<ArchiveLayer> layer = make_layer(*archive, {}, {}, null_log());
    REQUIRE(layer);
    const Node* const node = layer->layer.tree->find_path("f");
    REQUIRE(node != nullptr);
    CHECK(node->uid == 1234);
    CHECK(node->gid == 99999);
    CHECK(node->mtime() == Timestamp{-86401, 500'000'000});
    return archive->from_kept_index;
  };
  // Where 0.1.0 looks for it, and where a later version does, under either identity.
  const std::string then = identity_of(packed, 2);
  CHECK(sha256_of(old_index.substr(0, old_index.size() - 32)) ==
        old_index.substr(old_index.size() - 32));
  write_file(file_of(dir / "cache", then), renamed(old_index, then));
  CHECK_FALSE(read());
  CHECK(read());
  const std::string now = identity_of(packed, 4);
  // So this is its place today.
  REQUIRE(std::filesystem::exists(file_of(dir / "cache", now)));
  for (const std::string& identity : {then, now}) {
    write_file(file_of(dir / "cache", now), renamed(old_index, identity));
    CHECK_FALSE(read());
    CHECK(read());
  }
}

TEST_CASE("an index goes by how the archive was read, too") {
  const TempDir dir;
  std::filesystem::copy_file(
      std::filesystem::path(MKVIRTFS_ARCHIVE_TESTING_DIR) / "kept-by-0.1.0.tar.gz", dir / "a.tgz");
  const IndexCache cache((dir / "cache").string(), null_log());
  const auto source = open_file_source((dir / "a.tgz").string(), OnChange::error, null_log());
  REQUIRE(source);
  for (const bool is_again : {false, true}) {
    for (const PaxGlobals globals : {PaxGlobals::apply, PaxGlobals::ignore}) {
      ReadOptions options;
      options.pax_globals = globals;
      const Result<Archive> archive = read_archive(*source, options, {}, &cache, null_log());
      REQUIRE(archive);
      CHECK(archive->from_kept_index == is_again);
      Member member;
      archive->members.read(0, member);
      CHECK(member.gid == (globals == PaxGlobals::apply ? 99999 : 0));
    }
  }
}

}  // namespace mkvirtfs::archive
