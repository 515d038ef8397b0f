"""The functions that a statement may call and still be a read, by dialect.

What is not listed is unknown, never assumed harmless. Only functions that come with the server are here: a
name that a user or an extension defines is for the server's catalog to judge, and so are PostgreSQL's later
additions, whose names an older server leaves to its users (SQL/JSON's ``JSON_VALUE`` is in no catalog and
so never a proven read). The PostgreSQL list was taken from ``pg_proc`` of PostgreSQL 15 (no volatile
overload, no internal argument, not behind an operator), the others from the manuals of MySQL 8.4, MariaDB 11
and SQLite 3.40 and later. MySQL's and MariaDB's are one list: a stored function that fills in for the other's
is taken for it. Names are lower case.
"""

from __future__ import annotations

from typing import NamedTuple


class Functions(NamedTuple):
    """Hold what is known of one dialect's functions and of the words that look like them."""

    safe: frozenset[str]  # no effect, same answer on any node that holds the same data
    effects: frozenset[str]  # changes something, or answers for this connection or this node only
    prefixes: tuple[str, ...]  # a name that begins so belongs to ``effects``
    passing: frozenset[str]  # of ``effects``: nothing outlasts the transaction on the connection
    not_repeatable: frozenset[
        str
    ]  # of ``safe``: the answer depends on more than the tables that a text names
    bare: frozenset[str]  # of ``safe``: called without parentheses
    words: frozenset[str]  # syntax: ``word (`` is no call, and no function can have the name unquoted
    operators: frozenset[str]  # operators of the server itself; empty where users cannot define any

    def has_effects(self, name: str) -> bool:
        """Tell whether ``name`` is known to have effects or to depend on the connection."""
        return name in self.effects or (name.startswith(self.prefixes) and name not in self.safe)


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


_POSTGRESQL_SAFE = _set("""
    abbrev abs aclcontains aclexplode acos acosd acosh age area array_agg array_append array_dims
    array_fill array_length array_lower array_ndims array_position array_positions array_prepend
    array_remove array_replace array_to_json array_to_string array_to_tsvector array_upper ascii asin
    asind asinh atan atan2 atan2d atand atanh avg bit bit_and bit_count bit_length bit_or bit_xor bool
    bool_and bool_or box bpchar broadcast btrim cardinality cbrt ceil ceiling center char char_length
    character_length chr cidr circle clock_timestamp col_description concat concat_ws convert
    convert_from convert_to corr cos cosd cosh cot cotd count covar_pop covar_samp cume_dist
    current_database current_schema current_schemas current_setting current_user date date_bin date_part
    date_trunc datemultirange daterange decode degrees dense_rank diagonal diameter div encode
    enum_first enum_last enum_range every exp extract factorial family first_value float4 float8 floor
    format format_type gcd gen_random_uuid generate_series generate_subscripts get_bit get_byte
    get_current_ts_config getdatabaseencoding has_any_column_privilege has_column_privilege
    has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege
    has_language_privilege has_parameter_privilege has_schema_privilege has_sequence_privilege
    has_server_privilege has_table_privilege has_tablespace_privilege has_type_privilege height host
    hostmask initcap int2 int4 int4multirange int4range int8 int8multirange int8range interval
    is_normalized isempty isfinite json_agg json_array_elements json_array_elements_text
    json_array_length json_build_array json_build_object json_each json_each_text json_extract_path
    json_extract_path_text json_object json_object_agg json_object_keys json_populate_record
    json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_to_tsvector
    json_typeof jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length
    jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path
    jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys
    jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query
    jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
    jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set
    jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_to_tsvector jsonb_typeof
    justify_days justify_hours justify_interval lag last_value lcm lead left length like line ln log
    log10 lower lower_inc lower_inf lpad lseg ltrim macaddr macaddr8 macaddr8_set7bit make_date
    make_interval make_time make_timestamp make_timestamptz masklen max md5 min min_scale mod mode money
    multirange mxid_age netmask network normalize notlike now npoints nth_value ntile num_nonnulls
    num_nulls numeric numeric_div_trunc nummultirange numnode numrange obj_description octet_length oid
    oidvectortypes overlaps overlay parse_ident path percent_rank percentile_cont percentile_disc
    pg_client_encoding pg_collation_for pg_column_compression pg_column_size pg_database_size
    pg_function_is_visible pg_get_constraintdef pg_get_expr pg_get_function_arg_default
    pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result
    pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_partition_constraintdef pg_get_partkeydef
    pg_get_ruledef pg_get_serial_sequence pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_has_role
    pg_indexes_size pg_is_in_recovery pg_lsn pg_partition_root pg_relation_size pg_size_bytes
    pg_size_pretty pg_sleep pg_snapshot_xip pg_snapshot_xmax pg_snapshot_xmin pg_table_is_visible
    pg_table_size pg_total_relation_size pg_type_is_visible pg_typeof phraseto_tsquery pi
    plainto_tsquery point polygon position pow power querytree quote_ident quote_literal quote_nullable
    radians radius random range_agg range_intersect_agg range_merge rank regclass regexp_count
    regexp_instr regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array
    regexp_split_to_table regexp_substr regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy repeat replace reverse right round row_number row_security_active
    row_to_json rpad rtrim scale session_user set_bit set_byte set_masklen setweight sha224 sha256
    sha384 sha512 shobj_description sign similar_to_escape sin sind sinh slope split_part sqrt
    statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array string_to_table strip
    strpos substr substring sum tan tand tanh text time timeofday timestamp timestamptz timetz timezone
    to_ascii to_char to_date to_hex to_json to_jsonb to_number to_regclass to_regcollation
    to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure to_regrole to_regtype
    to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim_array trim_scale trunc
    ts_delete ts_filter ts_headline ts_rank ts_rank_cd tsmultirange tsquery_phrase tsrange
    tstzmultirange tstzrange tsvector_to_array txid_snapshot_xip txid_snapshot_xmax txid_snapshot_xmin
    txid_visible_in_snapshot unistr unnest upper upper_inc upper_inf var_pop var_samp varchar variance
    version websearch_to_tsquery width width_bucket xid xml xml_is_well_formed
    xml_is_well_formed_content xml_is_well_formed_document xmlagg xmlcomment xpath xpath_exists
""")
# pg_sleep, random, clock_timestamp and the size functions above are volatile to PostgreSQL, but without
# effect, so a replica may run them.

# Stable to PostgreSQL, yet unfit for a replica, are also here: txid_current takes a transaction number, the
# *_to_xml family runs any query or reads tables that the text does not name, pg_listening_channels answers
# for the connection.
_POSTGRESQL_EFFECTS = _set("""
    connectby crosstab crosstab2 crosstab3 crosstab4 currtid currtid2 currval cursor_to_xml
    cursor_to_xmlschema database_to_xml database_to_xml_and_xmlschema database_to_xmlschema lastval
    loread lowrite nextval pg_backend_pid pg_backup_start pg_backup_stop pg_cancel_backend
    pg_current_snapshot pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn
    pg_current_xact_id pg_current_xact_id_if_assigned pg_cursor pg_export_snapshot
    pg_extension_config_dump pg_import_system_collations pg_last_wal_receive_lsn pg_last_wal_replay_lsn
    pg_last_xact_replay_timestamp pg_listening_channels pg_log_backend_memory_contexts pg_my_temp_schema
    pg_nextoid pg_notify pg_prepared_statement pg_prewarm pg_promote pg_read_binary_file pg_read_file
    pg_reload_conf pg_rotate_logfile pg_start_backup pg_stat_clear_snapshot pg_stat_file
    pg_stat_force_next_flush pg_stat_statements_reset pg_stop_backup pg_switch_wal pg_terminate_backend
    pg_wal_replay_pause pg_wal_replay_resume pg_wal_replay_wait pg_xact_status query_to_xml
    query_to_xml_and_xmlschema query_to_xmlschema schema_to_xml schema_to_xml_and_xmlschema
    schema_to_xmlschema set_config setseed setval table_to_xml table_to_xml_and_xmlschema
    table_to_xmlschema ts_rewrite ts_stat txid_current txid_current_if_assigned txid_current_snapshot
    txid_status
""")
_POSTGRESQL_PREFIXES = (
    *(
        "pg_advisory_",
        "pg_try_advisory_",
        "pg_create_",
        "pg_drop_",
        "pg_copy_",
        "pg_logical_",
        "pg_replication_",
    ),
    *("pg_ls_", "pg_stat_reset", "pg_file_", "lo_", "dblink", "binary_upgrade_", "brin_", "gin_clean_"),
)
_POSTGRESQL_PASSING = _set("""
    currval lastval nextval pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_backend_pid
    pg_cancel_backend pg_current_snapshot pg_current_wal_flush_lsn pg_current_wal_insert_lsn
    pg_current_wal_lsn pg_current_xact_id pg_current_xact_id_if_assigned pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_notify pg_terminate_backend
    pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared pg_xact_status setval table_to_xml
    table_to_xml_and_xmlschema table_to_xmlschema txid_current txid_current_if_assigned
    txid_current_snapshot txid_status
""")
_POSTGRESQL_BARE = _set("""
    current_catalog current_date current_role current_schema current_time current_timestamp current_user
    localtime localtimestamp session_user system_user user
""")
_POSTGRESQL_NOT_REPEATABLE = _set("""
    age clock_timestamp col_description current_date current_role current_schemas current_setting
    current_time current_timestamp current_user gen_random_uuid get_current_ts_config
    has_any_column_privilege has_column_privilege has_database_privilege
    has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
    has_parameter_privilege has_schema_privilege has_sequence_privilege has_server_privilege
    has_table_privilege has_tablespace_privilege has_type_privilege localtime localtimestamp mxid_age now
    obj_description pg_client_encoding pg_database_size pg_function_is_visible pg_get_constraintdef
    pg_get_expr pg_get_function_arg_default pg_get_function_arguments pg_get_function_identity_arguments
    pg_get_function_result pg_get_functiondef pg_get_indexdef pg_get_partition_constraintdef
    pg_get_partkeydef pg_get_ruledef pg_get_serial_sequence pg_get_triggerdef pg_get_userbyid
    pg_get_viewdef pg_has_role pg_indexes_size pg_is_in_recovery pg_partition_root pg_relation_size
    pg_sleep pg_table_is_visible pg_table_size pg_total_relation_size pg_type_is_visible random
    row_security_active session_user shobj_description statement_timestamp system_user timeofday
    to_regclass to_regcollation to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure
    to_regrole to_regtype transaction_timestamp txid_visible_in_snapshot user version
""")
# Reserved words and those that cannot name a function (catcode R and C of pg_get_keywords()); the servers'
# own expressions among them (COALESCE, EXTRACT, XMLTABLE ...) have no effects.
_POSTGRESQL_WORDS = _set("""
    all analyse analyze and any array as asc asymmetric between bigint bit boolean both case cast char
    character check coalesce collate column constraint create current_catalog current_date current_role
    current_time current_timestamp current_user dec decimal default deferrable desc distinct do else end
    except exists extract false fetch float for foreign from grant greatest group grouping having in
    initially inout int integer intersect interval into lateral leading least limit localtime
    localtimestamp national nchar none normalize not null nullif numeric offset on only or order out
    overlay placing position precision primary real references returning row select session_user setof
    smallint some substring symmetric table then time timestamp to trailing treat trim true union unique
    user using values varchar variadic when where window with xmlattributes xmlconcat xmlelement
    xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
""")
_POSTGRESQL_OPERATORS = _set(r"""
    !! !~ !~* !~~ !~~* # ## #- #> #>> % & && &< &<| &> * *< *<= *<> *= *> *>= + - -> ->> -|- / < <-> << <<=
    <<| <= <> != <@ <^ = > >= >> >>= >^ ? ?# ?& ?- ?-| ?| ?|| @ @-@ @> @? @@ @@@ ^ ^@ | |&> |/ |>> || ||/ ~ ~*
    ~<=~ ~<~ ~= ~>=~ ~>~ ~~ ~~* =>
""")

_MYSQL_SAFE = _set("""
    abs acos adddate addtime aes_decrypt aes_encrypt any_value ascii asin atan atan2 avg bin bin_to_uuid
    bit_and bit_count bit_length bit_or bit_xor cast ceil ceiling char char_length character_length
    charset chr coalesce coercibility collation column_check column_exists column_get column_json
    column_list compress concat concat_ws conv convert convert_tz cos cot count crc32 crc32c cume_dist
    curdate current_date current_role current_time current_timestamp current_user curtime database date
    date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear decode
    decode_histogram decode_oracle default degrees dense_rank elt encode exp export_set extract
    extractvalue field find_in_set first_value floor format format_bytes format_pico_time from_base64
    from_days from_unixtime geomcollection geometrycollection get_format greatest group_concat grouping
    gtid_subset gtid_subtract hex hour if ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa insert instr
    interval is_ipv4 is_ipv4_compat is_ipv4_mapped is_ipv6 is_uuid isnull json_array json_array_append
    json_array_insert json_array_intersect json_arrayagg json_compact json_contains json_contains_path
    json_depth json_detailed json_equals json_exists json_extract json_insert json_key_value json_keys
    json_length json_loose json_merge json_merge_patch json_merge_preserve json_normalize json_object
    json_object_filter_keys json_object_to_array json_objectagg json_overlaps json_pretty json_query
    json_quote json_remove json_replace json_schema_valid json_schema_validation_report json_search
    json_set json_storage_free json_storage_size json_table json_type json_unquote json_valid json_value
    kdf lag last_day last_value lcase lead least left length lengthb linestring ln localtime
    localtimestamp locate log log10 log2 lower lpad ltrim make_set makedate maketime match max
    mbrcontains mbrcoveredby mbrcovers mbrdisjoint mbrequals mbrintersects mbroverlaps mbrtouches
    mbrwithin md5 median microsecond mid min minute mod month monthname multilinestring multipoint
    multipolygon name_const natural_sort_key now nth_value ntile nullif nvl nvl2 oct octet_length ord
    percent_rank percentile_cont percentile_disc period_add period_diff pi point polygon position pow
    power quarter quote radians rand random_bytes rank regexp_instr regexp_like regexp_replace
    regexp_substr repeat replace reverse right round row row_number rpad rtrim schema sec_to_time second
    session_user sformat sha sha1 sha2 sign sin sleep soundex space sqrt st_area st_asbinary
    st_asgeojson st_astext st_aswkb st_aswkt st_boundary st_buffer st_centroid st_collect st_contains
    st_convexhull st_crosses st_difference st_dimension st_disjoint st_distance st_distance_sphere
    st_endpoint st_envelope st_equals st_exteriorring st_geohash st_geometryfromtext st_geometryn
    st_geometrytype st_geomfromgeojson st_geomfromtext st_geomfromwkb st_interiorringn st_intersection
    st_intersects st_isclosed st_isempty st_isring st_issimple st_isvalid st_latitude st_length
    st_longitude st_makeenvelope st_numgeometries st_numinteriorrings st_numpoints st_overlaps
    st_pointfromgeohash st_pointfromtext st_pointn st_pointonsurface st_simplify st_srid st_startpoint
    st_swapxy st_symdifference st_touches st_transform st_union st_within st_x st_y statement_digest
    statement_digest_text std stddev stddev_pop stddev_samp str_to_date strcmp subdate substr substring
    substring_index subtime sum sysdate system_user time time_format time_to_sec timediff timestamp
    timestampadd timestampdiff to_base64 to_char to_date to_days to_number to_seconds trim trim_oracle
    truncate ucase uncompress uncompressed_length unhex unix_timestamp updatexml upper user utc_date
    utc_time utc_timestamp uuid uuid_to_bin uuid_v4 uuid_v7 validate_password_strength values var_pop
    var_samp variance vec_distance vec_distance_cosine vec_distance_euclidean vec_fromtext vec_totext
    version week weekday weekofyear weight_string year yearweek
""")
# UUID_SHORT() counts per server: its answers are unique only while one server hands them out.
_MYSQL_EFFECTS = _set("""
    asynchronous_connection_failover_add_managed asynchronous_connection_failover_add_source
    asynchronous_connection_failover_delete_managed asynchronous_connection_failover_delete_source
    asynchronous_connection_failover_reset benchmark connection_id found_rows get_lock
    group_replication_disable_member_action group_replication_enable_member_action
    group_replication_reset_member_actions group_replication_set_as_primary
    group_replication_set_communication_protocol group_replication_set_write_concurrency
    group_replication_switch_to_multi_primary_mode group_replication_switch_to_single_primary_mode
    is_free_lock is_used_lock keyring_key_fetch keyring_key_generate keyring_key_length_fetch
    keyring_key_remove keyring_key_store keyring_key_type_fetch last_insert_id lastval load_file
    master_gtid_wait master_pos_wait nextval previous_value ps_current_thread_id ps_thread_id
    release_all_locks release_lock row_count sequence_table service_get_read_locks
    service_get_write_locks service_release_locks setval source_pos_wait spider_bg_direct_sql
    spider_copy_tables spider_direct_sql spider_flush_table_mon_cache spider_ping_table sql_thread_wait
    uuid_short version_tokens_delete version_tokens_edit version_tokens_lock_exclusive
    version_tokens_lock_shared version_tokens_set version_tokens_unlock wait_for_executed_gtid_set
    wait_until_sql_thread_after_gtids
""")
# LAST_INSERT_ID is not here: with an argument it sets what the next LAST_INSERT_ID() answers.
_MYSQL_PASSING = _set("""
    connection_id found_rows is_free_lock is_used_lock lastval load_file master_gtid_wait
    master_pos_wait nextval previous_value row_count setval source_pos_wait uuid_short
    wait_for_executed_gtid_set
""") - _set("last_insert_id")  # LAST_INSERT_ID(expr) sets what the next LAST_INSERT_ID() answers
_MYSQL_BARE = _set("""
    current_date current_role current_time current_timestamp current_user localtime localtimestamp
    utc_date utc_time utc_timestamp
""")
_MYSQL_NOT_REPEATABLE = _set("""
    aes_encrypt curdate current_date current_role current_time current_timestamp current_user curtime
    localtime localtimestamp now rand random_bytes session_user sleep sysdate system_user unix_timestamp
    user utc_date utc_time utc_timestamp uuid uuid_v4 uuid_v7 validate_password_strength version
""")
# Reserved words of MySQL 8.4 and MariaDB 11 that may stand before a parenthesis. A stored function of such a
# name can be called only with its database in front, and that is always a call here.
_MYSQL_WORDS = _set("""
    all and as asc between bigint binary blob both by case cast char character check collate column
    constraint cross decimal default desc distinct distinctrow div double else end except exists false
    float for force foreign from fulltext group having ignore in index inner int integer intersect into
    is join key lateral like limit mediumint natural not null numeric on or order outer partition
    precision primary procedure real recursive references regexp returning rlike select separator set
    smallint straight_join table then tinyint trailing true union unique unsigned update use using
    values varbinary varchar when where with xor
""")
_SQLITE_SAFE = _set("""
    abs acos acosh asin asinh atan atan2 atanh avg bm25 ceil ceiling char coalesce concat concat_ws cos
    cosh count cume_dist current_date current_time current_timestamp date datetime degrees dense_rank
    exp first_value floor format fts5_source_id generate_series glob group_concat hex highlight if
    ifnull iif instr json json_array json_array_length json_each json_error_position json_extract
    json_group_array json_group_object json_insert json_object json_patch json_pretty json_quote
    json_remove json_replace json_set json_tree json_type json_valid jsonb jsonb_array jsonb_each
    jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch
    jsonb_remove jsonb_replace jsonb_set jsonb_tree julianday lag last_value lead length like likelihood
    likely ln log log10 log2 lower ltrim matchinfo max median min mod nth_value ntile nullif
    octet_length offsets percent_rank percentile percentile_cont percentile_disc pi pow power
    pragma_collation_list pragma_compile_options pragma_database_list pragma_foreign_key_list
    pragma_function_list pragma_index_info pragma_index_list pragma_index_xinfo pragma_module_list
    pragma_pragma_list pragma_table_info pragma_table_list pragma_table_xinfo printf quote radians
    random randomblob rank regexp replace round row_number rtreecheck rtreedepth rtreenode rtrim sign
    sin sinh snippet soundex sqlite_compileoption_get sqlite_compileoption_used sqlite_offset
    sqlite_source_id sqlite_version sqrt strftime string_agg substr substring subtype sum tan tanh time
    timediff total trim trunc typeof unhex unicode unistr unistr_quote unixepoch unlikely upper zeroblob
""")
# pragma_NAME without parentheses is a table function too, and not all of them only look.
_SQLITE_EFFECTS = _set("""
    changes edit eval fsdir fts3_tokenizer fts5 fts5_get_locale fts5_insttoken fts5_locale
    last_insert_rowid load_extension lsmode optimize readfile sqlar_uncompress sqlite_log total_changes
    writefile zipfile
""")
_SQLITE_PREFIXES = ("pragma_",)
_SQLITE_PASSING = _set("changes last_insert_rowid total_changes readfile sqlite_log fsdir")
_SQLITE_BARE = _set("current_date current_time current_timestamp")
_SQLITE_NOT_REPEATABLE = _set("""
    current_date current_time current_timestamp date datetime julianday pragma_collation_list
    pragma_compile_options pragma_database_list pragma_foreign_key_list pragma_function_list
    pragma_index_info pragma_index_list pragma_index_xinfo pragma_module_list pragma_pragma_list
    pragma_table_info pragma_table_list pragma_table_xinfo random randomblob rtreecheck sqlite_offset
    strftime time timediff unixepoch
""")
_SQLITE_WORDS = _set("""
    all and as asc between by case cast check collate constraint cross default desc distinct else end
    escape except exists filter foreign from group having in index indexed inner intersect into is
    isnull join key limit match materialized natural not notnull null offset on or order outer over
    partition primary references returning select set table then union unique update using values when
    where window with
""")

POSTGRESQL = Functions(
    _POSTGRESQL_SAFE | _POSTGRESQL_BARE,
    _POSTGRESQL_EFFECTS,
    _POSTGRESQL_PREFIXES,
    _POSTGRESQL_PASSING,
    _POSTGRESQL_NOT_REPEATABLE,
    _POSTGRESQL_BARE,
    _POSTGRESQL_WORDS,
    _POSTGRESQL_OPERATORS,
)
MYSQL = Functions(
    _MYSQL_SAFE,
    _MYSQL_EFFECTS,
    ("wsrep_",),
    _MYSQL_PASSING,
    _MYSQL_NOT_REPEATABLE,
    _MYSQL_BARE,
    _MYSQL_WORDS,
    frozenset(),
)
SQLITE = Functions(
    _SQLITE_SAFE,
    _SQLITE_EFFECTS,
    _SQLITE_PREFIXES,
    _SQLITE_PASSING,
    _SQLITE_NOT_REPEATABLE,
    _SQLITE_BARE,
    _SQLITE_WORDS,
    frozenset(),
)
