#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""A bed for demonstrations and integration tests: the real things, small.

Each module starts one thing that a cloud is made of (a libvirtd with QEMU
guests, RabbitMQ, MariaDB, Nova with the extension) as child processes of
its own, with directories, sockets and loopback ports of its own, and stops
exactly those. Nothing of the machine's own installation is touched.
"""
