#include "agent/layout.h"

#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>

#include <cmocka.h>

#include "node.h"

#define UID    "5b0c9a7e-12f4-4c1d-9e3b-000000000001"
#define UID_   "5b0c9a7e_12f4_4c1d_9e3b_000000000001"
#define STATIC "8f4b1c2d3e4f5a6b7c8d9e0f1a2b3c4d"
#define ID     "f00dbabe00000000000000000000000000000000000000000000000000000001"

/* ---- the bench: a tree without an agent ---- */

static struct node *node;
static struct cgroup_root *root;
static struct layout *layout;

static int setup(void **state)
{
    struct node_options options = { .no_agent = true };

    (void)state;
    node = node_open(&options);
    fake_remove("kubepods");
    return cgroup_root_open(&root, node->tree, CGROUP_ROOT_ANY_FS, NULL);
}

static int teardown(void **state)
{
    (void)state;
    layout = layout_close(layout);
    root = cgroup_root_close(root);
    node = node_close(node);
    return 0;
}

static void look_for_roots(void)
{
    if (layout)
        assert_int_equal(layout_refresh(layout, NULL), 0);
    else
        assert_int_equal(layout_open(&layout, root, NULL), 0);
}

static void assert_found(const char *uid, const char *path, bool systemd)
{
    struct layout_pod pod = { .fd = -1 };
    struct stat there, expected;

    assert_int_equal(layout_find(layout, uid, &pod, NULL), 0);
    assert_string_equal(pod.path, path);
    assert_true(pod.systemd == systemd);
    assert_int_equal(fstat(pod.fd, &there), 0);
    assert_int_equal(stat(keep("%s/%s", node->tree, path), &expected), 0);
    assert_int_equal(there.st_ino, expected.st_ino);
    close(pod.fd);
}

/* ---- pod UIDs ---- */

static void test_a_uid_is_a_uuid_or_a_hash(void **state)
{
    (void)state;
    assert_null(layout_check_uid(UID));
    assert_null(layout_check_uid(STATIC));
    assert_null(layout_check_uid("00000000-0000-0000-0000-000000000000"));
    assert_null(layout_check_uid("ffffffffffffffffffffffffffffffff"));
}

static void test_nothing_else_is_a_uid(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "/",
        "../" UID,
        UID "/..",
        UID "/",
        "/" UID,
        UID " ",
        " " UID,
        UID "\n",
        UID_,
        "5B0C9A7E-12F4-4C1D-9E3B-000000000001",
        "5b0c9a7e-12f4-4c1d-9e3b-00000000000A",
        "5b0c9a7e-12f4-4c1d-9e3b-00000000000",
        "5b0c9a7e-12f4-4c1d-9e3b-0000000000012",
        "5b0c9a7e-12f4-4c1d-9e3b-00000000000g",
        "5b0c9a7e-12f4-4c1d-9e3b-0000000000\xc3\xa9",
        "5b0c9a7e12f4-4c1d-9e3b-0000-00000001",
        "5b0c9a7e-12f4-4c1d-9e3b-0000-0000001",
        "-5b0c9a7e-12f4-4c1d-9e3b-00000000000",
        "8f4b1c2d3e4f5a6b7c8d9e0f1a2b3c4",
        "8f4b1c2d3e4f5a6b7c8d9e0f1a2b3c4d0",
        "8F4B1C2D3E4F5A6B7C8D9E0F1A2B3C4D",
        "8f4b1c2d3e4f5a6b7c8d9e0f1a2b3c4/",
        "8f4b1c2d3e4f5a6b../8d9e0f1a2b3c4d",
        "*",
        "%s%s%s%s",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_non_null(layout_check_uid(bad[i]));
}

static void test_each_character_of_a_uid_counts(void **state)
{
    (void)state;
    for (size_t i = 0; i < strlen(UID); i++)
        for (int c = 0; c < 256; c++) {
            char uid[] = UID;
            bool good = UID[i] == '-' ? c == '-' : (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
            uid[i] = (char)c;
            assert_true((layout_check_uid(uid) == NULL) == good);
        }
}

static void test_a_megabyte_is_no_uid(void **state)
{
    const size_t size = (size_t)1 << 20;
    char *uid = malloc(size + 1);

    (void)state;
    memset(uid, 'a', size);
    uid[size] = '\0';
    assert_non_null(layout_check_uid(uid));
    memcpy(uid, UID, strlen(UID));
    assert_non_null(layout_check_uid(uid));
    free(uid);
}

/* ---- container ids ---- */

static void test_container_ids(void **state)
{
    static const struct {
        bool systemd;
        const char *name, *id;
    } names[] = {
        { true, "cri-containerd-" ID ".scope", ID },
        { true, "crio-" ID ".scope", ID },
        { true, "docker-" ID ".scope", ID },
        { true, "crio-conmon-" ID ".scope", NULL },
        { true, "cri-containerd-" ID, NULL },
        { true, ID, NULL },
        { true, "crio-" ID ".slice", NULL },
        { true, "crio-.scope", NULL },
        { true, ".scope", NULL },
        { true, "crio-" ID ".scope.d", NULL },
        { false, ID, ID },
        { false, "crio-" ID, ID },
        { false, "crio-conmon-" ID, NULL },
        { false, "crio-", NULL },
    };
    char id[CONTAINER_ID_SIZE];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        bool is = layout_container_id(names[i].systemd, names[i].name, id);
        assert_true(is == (names[i].id != NULL));
        if (is)
            assert_string_equal(id, names[i].id);
    }
}

static void test_container_ids_fit_or_are_none(void **state)
{
    char name[256], id[CONTAINER_ID_SIZE];

    (void)state;
    memset(name, 'a', sizeof name);
    name[CONTAINER_ID_SIZE - 1] = '\0';
    assert_true(layout_container_id(false, name, id));
    assert_int_equal(strlen(id), CONTAINER_ID_SIZE - 1);
    name[CONTAINER_ID_SIZE - 1] = 'a';
    name[CONTAINER_ID_SIZE] = '\0';
    assert_false(layout_container_id(false, name, id));
}

/* ---- every place where a pod can be ---- */

static const struct {
    const char *uid, *path;
    bool systemd;
} places[] = {
    { UID, "kubepods/pod" UID, false },
    { UID, "kubepods/burstable/pod" UID, false },
    { UID, "kubepods/besteffort/pod" UID, false },
    { STATIC, "kubepods/burstable/pod" STATIC, false },
    { UID, "kubepods.slice/kubepods-pod" UID_ ".slice", true },
    { UID, "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_ ".slice", true },
    { UID, "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" UID_ ".slice", true },
    { STATIC, "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" STATIC ".slice",
      true },
    /* k3s as a service, and with its own root */
    { UID, "system.slice/k3s.service/kubepods/besteffort/pod" UID, false },
    { UID, "k3s/kubepods/pod" UID, false },
    /* minikube in docker, of either driver */
    { UID, "docker/" ID "/kubepods/burstable/pod" UID, false },
    { UID,
      "docker/" ID "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_ ".slice",
      true },
    { UID,
      "system.slice/docker-" ID ".scope/kubepods.slice/kubepods-besteffort.slice/"
      "kubepods-besteffort-pod" UID_ ".slice",
      true },
    /* kind: below a slice of the kubelet's, whose name the others repeat */
    { UID,
      "docker/" ID "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
      "kubelet-kubepods-burstable-pod" UID_ ".slice",
      true },
    { UID,
      "system.slice/docker-" ID ".scope/kubelet.slice/kubelet-kubepods.slice/"
      "kubelet-kubepods-pod" UID_ ".slice",
      true },
    { UID, "docker/" ID "/kubelet/kubepods/burstable/pod" UID, false },
};

static void test_every_layout_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        char top[64] = "";
        fake_group(places[i].path, "max", 0);
        look_for_roots();
        assert_int_equal(layout_n_roots(layout), 1);
        assert_found(places[i].uid, places[i].path, places[i].systemd);
        snprintf(top, sizeof top, "%.*s", (int)strcspn(places[i].path, "/"), places[i].path);
        fake_remove(top);
    }
}

static void test_many_kubelets_on_one_node(void **state)
{
    const char *path =
        "docker/b/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" UID_ ".slice";

    (void)state;
    fake_group("kubepods", "max", 0);
    fake_group("docker/a/kubelet.slice/kubelet-kubepods.slice", "max", 0);
    fake_group(path, "max", 0);
    look_for_roots();
    assert_int_equal(layout_n_roots(layout), 3);
    assert_string_equal(layout_root_path(layout, 0), "kubepods"); /* the nearest first */
    assert_found(UID, path, true);
}

static void test_a_pod_that_is_not_there_is_an_outcome(void **state)
{
    struct error error = ERROR_INIT;
    struct layout_pod pod;

    (void)state;
    look_for_roots(); /* there is none */
    assert_int_equal(layout_n_roots(layout), 0);
    assert_int_equal(layout_find(layout, UID, &pod, &error), LAYOUT_E_NOT_FOUND);
    assert_non_null(strstr(error.msg, UID));
    fake_group("kubepods/burstable", "max", 0);
    look_for_roots();
    assert_int_equal(layout_find(layout, UID, &pod, &error), LAYOUT_E_NOT_FOUND);
}

static void test_similar_names_are_no_roots(void **state)
{
    static const char *const names[] = { "kubepods.slice.d", "mykubepods",       "kubepods2",
                                         "mykubepods.slice", "kubepods-x.slice", "x-kubepods",
                                         "-kubepods",        "kubepods.service" };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        fake_group(names[i], "max", 0);
    look_for_roots();
    assert_int_equal(layout_n_roots(layout), 0);
}

static void test_a_root_too_deep_is_not_searched_for(void **state)
{
    (void)state;
    fake_group("a/b/c/kubepods", "max", 0);
    fake_group("a/b/c/d/kubepods", "max", 0);
    look_for_roots();
    assert_int_equal(layout_n_roots(layout), 1);
    assert_string_equal(layout_root_path(layout, 0), "a/b/c/kubepods");
}

/* What a container makes below its own group is not a kubelet's. */
static void test_nothing_is_searched_for_below_a_root(void **state)
{
    (void)state;
    fake_group("kubepods/burstable/kubepods", "max", 0);
    look_for_roots();
    assert_int_equal(layout_n_roots(layout), 1);
}

static void test_so_many_roots_are_known(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= LAYOUT_ROOTS_MAX; i++)
        fake_group(keep("docker/%u/kubepods", i), "max", 0);
    look_for_roots();
    assert_int_equal(layout_n_roots(layout), LAYOUT_ROOTS_MAX);
}

/* The roots near the top are found however large the rest of the tree is. */
static void test_a_large_tree_is_searched_so_far(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LAYOUT_SEARCH_MAX + 100; i++)
        assert_int_equal(mkdir(keep("%s/unit-%u", node->tree, i), 0755), 0);
    fake_group("zzz/kubepods", "max", 0);
    fake_group("kubepods", "max", 0);
    look_for_roots();
    assert_true(layout_n_roots(layout) >= 1);
    assert_string_equal(layout_root_path(layout, 0), "kubepods");
}

static void test_refreshing_notices_what_came_and_what_went(void **state)
{
    struct layout_pod pod;

    (void)state;
    look_for_roots();
    fake_group("kubepods.slice/kubepods-pod" UID_ ".slice", "max", 0);
    assert_int_equal(layout_find(layout, UID, &pod, NULL), LAYOUT_E_NOT_FOUND);
    look_for_roots();
    assert_found(UID, "kubepods.slice/kubepods-pod" UID_ ".slice", true);
    fake_remove("kubepods.slice");
    assert_int_equal(layout_find(layout, UID, &pod, NULL), LAYOUT_E_NOT_FOUND);
    look_for_roots();
    assert_int_equal(layout_n_roots(layout), 0);
}

/* ---- symbolic links ---- */

static void link_to(const char *target, const char *path)
{
    assert_int_equal(symlink(target, keep("%s/%s", node->tree, path)), 0);
}

static void test_a_link_is_no_root(void **state)
{
    (void)state;
    fake_group("other/burstable/pod" UID, "max", 0);
    link_to("other", "kubepods");
    look_for_roots();
    assert_int_equal(layout_n_roots(layout), 0);
}

static void test_a_link_is_no_pod(void **state)
{
    static const char *const links[] = { "kubepods/pod" UID, "kubepods/burstable" };
    struct layout_pod pod;

    (void)state;
    fake_group("other/pod" UID, "max", 0);
    for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
        fake_group("kubepods", "max", 0);
        link_to(keep("%s/other%s", node->tree, i == 0 ? "/pod" UID : ""), links[i]);
        look_for_roots();
        assert_int_equal(layout_n_roots(layout), 1);
        assert_true(layout_find(layout, UID, &pod, NULL) != 0);
        fake_remove("kubepods");
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_uid_is_a_uuid_or_a_hash),
        cmocka_unit_test(test_nothing_else_is_a_uid),
        cmocka_unit_test(test_each_character_of_a_uid_counts),
        cmocka_unit_test(test_a_megabyte_is_no_uid),
        cmocka_unit_test(test_container_ids),
        cmocka_unit_test(test_container_ids_fit_or_are_none),
        TEST(test_every_layout_is_found),
        TEST(test_many_kubelets_on_one_node),
        TEST(test_a_pod_that_is_not_there_is_an_outcome),
        TEST(test_similar_names_are_no_roots),
        TEST(test_a_root_too_deep_is_not_searched_for),
        TEST(test_nothing_is_searched_for_below_a_root),
        TEST(test_so_many_roots_are_known),
        TEST(test_a_large_tree_is_searched_so_far),
        TEST(test_refreshing_notices_what_came_and_what_went),
        TEST(test_a_link_is_no_root),
        TEST(test_a_link_is_no_pod),
    };

    return cmocka_run_group_tests_name("layout", tests, NULL, NULL);
}
